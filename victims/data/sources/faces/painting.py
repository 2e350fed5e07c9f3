"""Every picture is painted back to front with tensor operations over the pixel grid.

Pixels are touched only by operations that IEEE 754 rounds exactly (no exp, sin, lerp, whose vector and scalar
code differ in the last bit; matrix products only of values that need no rounding). So the bytes of a photo do
not depend on batch, order and number of threads.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from splitleak.victims.data.sources.faces.canvas import View, between, blob, cover, ellipse, rounded, texture
from splitleak.victims.data.sources.faces.parameters import PARTS, Look, Person, Portrait, Shot, look_of, style_of


def draw_stage(portrait: Portrait, size: int) -> View:
    """The background, and the coordinates on which the rest is painted."""
    person, shot = portrait.person, portrait.shot
    grid = (torch.arange(size) + 0.5) / size * 2 - 1
    column, row = grid[None, None, None, :], grid[None, None, :, None]
    x, y = (column - shot.left) / shot.scale, (row - shot.down) / shot.scale
    level = (1 - shot.roll.square()).sqrt()
    u = level * x + shot.roll * y
    v = (level * y + 1) - shot.roll * x
    beside = u - 0.13 * shot.yaw
    pixel = 2 / size / shot.scale

    def on_head(waves: Tensor) -> Tensor:
        c, s = level[:, 0, 0], shot.roll[:, 0, 0]
        along_x, along_y = waves[..., 0] * c - waves[..., 1] * s, waves[..., 0] * s + waves[..., 1] * c
        return texture(x[:, 0], y[:, 0], along_x, along_y, waves[..., 2], pixel[:, 0, 0])

    n = len(shot.scale)
    wall = texture(
        column[0].expand(n, -1, -1),
        row[0].expand(n, -1, -1),
        shot.wall[..., 0],
        shot.wall[..., 1],
        shot.wall[..., 2],
        torch.full((n, 1), 2 / size),
    )
    wall = wall.mul_(shot.wall_edge).clamp_(-1, 1)
    slope = shot.gradient[:, :1] * column + (shot.gradient[:, 1:] * row + 0.5)
    albedo = (shot.far - shot.near) * slope + shot.near
    return View(
        albedo=albedo.add_(wall * shot.wall_colour),
        light=torch.full_like(u, 0.8),
        u=u,
        v=v,
        face=(beside * (0.22 * shot.yaw)).add_(1).mul_(beside),
        dome=draw_dome(u, v, person, shot),
        skin=on_head(person.pores),
        hair=on_head(person.strands),
        pixel=pixel,
    )


def draw_dome(u: Tensor, v: Tensor, person: Person, shot: Shot) -> Tensor:
    """Lambert's cosine on a flattened ball around the head."""
    across, down = u * (0.88 / person.head_width), v * 0.82
    front = (across.square() + down.square()).neg_().add_(1).clamp_(min=0.04).sqrt_()
    light_z = (1 - shot.light_x.square() - shot.light_y.square()).sqrt()
    lit = across.mul_(shot.light_x).add_(down.mul_(shot.light_y)).add_(front.mul_(light_z))
    return lit.clamp_(0.10, 1.0)


def draw_body(view: View, person: Person, shot: Shot) -> None:
    """Shoulders, collar and neck, with the shadow of the chin."""
    shoulders = cover(ellipse(view.u, view.v - 2.36, 2.9 * person.neck + 0.35, torch.tensor(1.0)), view.pixel)
    side = view.u * (0.35 * shot.light_x)
    view.paint(shoulders, shot.clothes)
    view.mark(shoulders, "body")
    view.relight(shoulders, side + view.hair * 0.07 + 0.78)
    hem = ellipse(view.u, view.v - 1.22, shot.collar, torch.tensor(0.40))
    column = (view.u.abs() - person.neck).maximum((view.v - 0.95).abs_().sub_(0.45))
    skin = cover(torch.minimum(hem, column), view.pixel)
    view.paint(skin, person.skin)
    view.mark(skin, "skin")
    below = (view.v - 1.02).mul_(1.1).clamp_(0.0, 0.34)
    view.relight(skin, side.add_(below).add_(0.44).add_(view.skin * 0.025))


def draw_back_hair(view: View, portrait: Portrait) -> None:
    """Hair behind the neck, and a bun."""
    person = portrait.person
    # where there is none, it hides behind the head
    width = (style_of(person.style, "back") * person.head_width).clamp(min=0.5)
    half = (style_of(person.style, "back_end") + 0.7) / 2
    box = rounded(view.u / width, (view.v - (half - 0.7)) / half, torch.tensor(0.6)).mul_(width)
    bun = style_of(person.style, "bun")
    ball = ellipse(view.u, view.v + (1.0 + 0.7 * bun), bun.clamp(min=0.01), (bun * 0.9).clamp(min=0.01))
    edge = torch.minimum(box, ball).add_(view.hair * style_of(person.style, "curl"))
    hair = cover(edge, view.pixel)
    view.paint(hair, person.hair)
    view.mark(hair, "hair")
    view.relight(hair, view.dome * 0.55 + view.hair * 0.2 + 0.18)


def head_distance(view: View, person: Person, look: Look[Tensor]) -> Tensor:
    """Signed distance to the outline of the head; a round mouth lowers the jaw."""
    below = view.v.clamp(min=0)
    drop = below / (person.chin + look.roundness * 0.08)
    across = (view.u / person.head_width).mul_(below.mul(person.taper).add_(1)).square_().clamp_(max=1.8)
    drop = drop.square_().clamp_(max=1.8)
    # a circle squared (Fernandez Guasti, 1992) below the eyes only
    corner = (across * person.square).mul_(drop)
    down = view.v.clamp(max=0).square_().add_(drop)
    return across.add_(down).sub_(corner).sqrt_().sub_(1).mul_(person.head_width)


def draw_head(view: View, person: Person, look: Look[Tensor]) -> None:
    """Ears and the bare head."""
    ear = ellipse(view.u.abs() - person.head_width, view.v - 0.10, torch.tensor(0.11), torch.tensor(0.19))
    hollow = (ear + 0.07).mul_(5).clamp_(-0.3, 0.0)
    ear = cover(ear, view.pixel)
    view.paint(ear, person.skin * torch.tensor((0.97, 0.88, 0.86))[:, None, None])
    view.mark(ear, "skin")
    view.relight(ear, view.dome * 0.7 + 0.15 + hollow)
    head = cover(head_distance(view, person, look), view.pixel)
    gloss = (view.dome - 0.9).clamp_(min=0).square_().mul_(14)
    view.paint(head, person.skin)
    view.mark(head, "skin")
    view.relight(head, gloss.add_(view.dome).add_(view.skin * 0.03))


def draw_relief(view: View, person: Person, look: Look[Tensor]) -> None:
    """The shading of sockets, nose, cheeks and folds; freckles."""
    mirror = view.face.abs()
    sockets = blob(mirror - person.eye_gap, view.v, 0.30, 0.26)
    cheeks = blob(mirror - 0.40, view.v - 0.33, 0.26, 0.22)
    view.light.sub_(sockets.mul_(0.20))
    view.light.add_(cheeks * (0.07 + 0.10 * look.cheek))
    view.paint(cheeks * (0.10 + 0.25 * look.cheek), person.skin * torch.tensor((1.0, 0.62, 0.58))[:, None, None])
    spots = (view.skin - 0.35).clamp_(0, 0.5).mul_(blob(view.face, view.v - 0.24, 0.62, 0.34))
    view.light.sub_(spots.mul_(person.freckles))
    # laughter lines: arcs from the nose to beside the mouth
    fold = mirror - (view.v - 0.12).mul_(0.55) - 0.12
    reach = blob(torch.zeros_like(fold), view.v - 0.40, 1.0, 0.20)
    view.light.sub_(
        between(fold, torch.tensor(-0.025), torch.tensor(0.025), view.pixel).mul_(reach * look.cheek * 0.3)
    )
    frown = between(mirror - 0.075, torch.tensor(-0.02), torch.tensor(0.02), view.pixel)
    view.light.sub_(frown.mul_(blob(mirror, view.v + 0.22, 0.4, 0.16)).mul_(0.45 * look.furrow))
    crease = ((view.v + 0.52) * 6).frac().abs().sub_(0.5).abs().mul_(-4).add_(1).clamp_(min=0)
    crease.mul_(blob(view.face, view.v + 0.55, 0.48, 0.20))
    view.light.sub_(crease.mul_(0.28 * look.wrinkle))


def draw_nose(view: View, person: Person, shot: Shot) -> None:
    """Bridge, tip, nostrils and the shadow below."""
    nose = view.face - 0.05 * shot.yaw
    high = view.v - person.nose_end
    width = person.nose_width
    below = blob(nose, high - 0.10, width * 1.2, 0.10)
    view.light.sub_(below.mul_(0.30))
    # a ridge: lit on the side of the lamp, dark on the other, wider toward the tip
    spread = (high + 0.45).clamp_(0, 0.45).mul_(1.3).add_(0.45).mul_(width)
    slant = nose / spread
    ridge = (1 - slant.square()).clamp_(min=0).mul_(slant)
    envelope = blob(torch.zeros_like(high), high + 0.15, 1.0, 0.36)
    view.light.add_(ridge.mul_(envelope).mul_(shot.light_x * 0.75 + 0.12 * shot.light_x.sign()))
    view.light.add_(blob(nose, high + 0.03, width * 0.6, 0.09).mul_(0.16))
    wings = blob(nose.abs() - width * 0.85, high, width * 0.35, 0.07)
    view.light.sub_(wings.mul_(0.22))
    nostrils = cover(ellipse(nose.abs() - width * 0.48, high - 0.055, width * 0.26, torch.tensor(0.026)), view.pixel)
    view.paint(nostrils.mul_(0.75), person.skin * 0.28)


def draw_eyes(view: View, person: Person, look: Look[Tensor]) -> None:
    """Whites, irises, pupils, lids and lashes of both eyes (the face is mirrored at u = 0)."""
    pixel = view.pixel
    width = person.eye_width
    across = (view.face.abs() - person.eye_gap) / width
    down = view.v + across * look.eye_slant
    arch = (1 - across.square()).clamp_(min=-0.5)
    upper = arch * (-width * look.lid_up * person.eye_open)
    lower = arch * (width * look.lid_low * person.eye_open)
    # a crease above the lid, and the bag of a squeezed eye below
    fold = between(down, upper - 0.075, upper - 0.05, pixel).mul_(arch.clamp(min=0))
    view.light.sub_(fold.mul_(0.28))
    opening = between(down, upper, lower, pixel)
    view.paint(opening, torch.tensor((0.95, 0.94, 0.92))[:, None, None])
    view.mark(opening, "eyes")
    view.relight(opening, 0.88 - between(down, upper, upper + 0.045, pixel) * 0.28)
    radius = (across * width).square_().add_((down + 0.012).square_()).sqrt_()
    iris = cover(radius - 0.078, pixel).mul_(opening)
    view.paint(iris, person.iris)
    view.paint(cover(radius - 0.036, pixel).mul_(opening), 0.03)
    glint = cover(ellipse(across * width - 0.028, down + 0.045, torch.tensor(0.022), torch.tensor(0.022)), pixel)
    view.paint(glint.mul_(opening), 1.3)
    lashes = between(down, upper - 0.030, upper + 0.012, pixel).mul_((arch * 6).clamp_(0, 1))
    view.paint(lashes.mul_(0.9), person.hair * 0.15 + 0.03)
    rim = between(down, lower - 0.004, lower + 0.016, pixel).mul_((arch * 4).clamp_(0, 1))
    view.paint(rim.mul_(0.45), person.skin * 0.35)


def draw_brows(view: View, person: Person, look: Look[Tensor]) -> None:
    """Brows: tapered arcs of hair."""
    across = (view.face.abs() - person.eye_gap - 0.02) / 0.24
    arch = 1 - across.square()
    middle = across * -look.brow_slope - arch * (look.brow_arch + person.brow_arch)
    middle.add_(person.brow_height - look.brow_lift)
    # thick at the inner end
    half = arch.clamp(min=0).mul_(1 - 0.35 * across).mul_(person.brow_thick)
    brow = between(view.v + view.hair * 0.008, middle - half, middle + half, view.pixel)
    view.paint(brow.mul_(0.92), person.hair * 0.62)


def draw_mouth(view: View, person: Person, look: Look[Tensor]) -> None:
    """Lips, and what an open mouth shows."""
    pixel = view.pixel
    across = view.face / (person.mouth_width * look.mouth_width)
    square = across.square()
    point = (1 - square).clamp_(min=-0.3)
    oval = point.clamp(min=0).sqrt_()
    arch = point + (oval - point).mul_(look.roundness.clamp(max=1))
    down = (view.v - person.mouth_height).add_(square.clamp_(max=1.2).mul_(look.mouth_curve))
    down.sub_(0.5 * look.mouth_curve)
    top, bottom = arch * -look.open_up, arch * look.open_low
    # the bow of the upper lip
    bow = 0.55 + 0.45 * blob(across.abs() - 0.28, torch.zeros_like(across), 0.55, 1.0)
    lip = person.lip * look.lip
    shadow = blob(across, view.v - (person.mouth_height + look.open_low + 0.17), 0.9, 0.08)
    view.light.sub_(shadow.mul_(0.20))
    lips = between(down, top - arch * lip * bow, bottom + arch * lip * 1.15, pixel)
    view.paint(lips, person.lips)
    view.mark(lips, "mouth")
    view.light.add_(blob(across, down - look.open_low - lip * 0.6, 0.5, lip * 0.6).mul_(0.12))
    inside = between(down, top - 0.010, bottom + 0.010, pixel).mul_((arch * 5).clamp_(0, 1))
    view.paint(inside, torch.tensor((0.24, 0.06, 0.07))[:, None, None])
    teeth = between(down, top, top + (bottom - top) * look.teeth, pixel).mul_((arch * 4).clamp_(0, 1))
    view.paint(teeth, torch.tensor((0.95, 0.93, 0.88))[:, None, None])
    view.relight(teeth, 0.86)
    tongue = blob(across, down - look.open_low, 0.7, 0.09).mul_(inside).mul_(1 - look.teeth)
    view.paint(tongue.mul_(0.8), torch.tensor((0.72, 0.30, 0.30))[:, None, None])


def draw_beard(view: View, portrait: Portrait) -> None:
    """Hair on jaw and upper lip, around the mouth."""
    person = portrait.person
    head = head_distance(view, person, look_of(portrait.shot))
    side = view.face.abs()
    line = 0.30 + 0.45 * blob(side, torch.zeros_like(side), 0.62, 1.0)
    jaw = (line - view.v).maximum(head)
    moustache = (side - 0.30).maximum((view.v - person.mouth_height - 0.02).abs_().sub_(0.16))
    edge = torch.minimum(jaw, moustache.maximum(person.nose_end + 0.06 - view.v))
    beard = cover(edge.add_(view.hair * 0.03), view.pixel + 0.06).mul_(person.beard)
    view.paint(beard, person.hair * 0.9)
    view.light.add_(view.hair * beard * 0.12)


def draw_mask(view: View, portrait: Portrait) -> None:
    """A pleated mask over nose, mouth and chin, and its straps."""
    person, shot, pixel = portrait.person, portrait.shot, view.pixel
    head = head_distance(view, person, look_of(shot))
    side = view.face.abs()
    strap = (view.v - 0.30) - (0.62 - side).mul_(0.25)
    straps = between(strap, torch.tensor(-0.018), torch.tensor(0.018), pixel).mul_(cover(head - 0.06, pixel))
    view.paint(straps.mul_((side > 0.45).float()), shot.cloth * 0.95)
    top = 0.36 - 0.22 * blob(side, torch.zeros_like(side), 0.62, 1.0)
    edge = (top - view.v).maximum(head - 0.025).maximum(side - 0.66)
    rim = (edge + 0.035).clamp_(0, 0.035).mul_(-5)
    mask = cover(edge, pixel)
    view.paint(mask, shot.cloth)
    view.mark(mask, "mask")
    pleats = ((view.v - 0.12 * side.square()) * 5.5).frac().sub_(0.5).abs().mul_(0.30)
    nose = blob(view.face - 0.05 * shot.yaw, view.v - person.nose_end, 0.26, 0.30)
    ridge = nose * view.face * (shot.light_x * 1.6)
    light = view.dome * 0.75 + 0.15 + pleats + rim + nose * 0.12 + ridge + view.skin * 0.02
    view.relight(mask, light)


def draw_glasses(view: View, portrait: Portrait) -> None:
    """Two rims, a bridge and temples; lenses that reflect the room a little."""
    person, shot, pixel = portrait.person, portrait.shot, view.pixel
    side = view.face.abs()
    middle, thick = person.eye_gap + 0.02, person.frame_thick
    across, down = (side - middle) / person.frame, (view.v - 0.03) / (person.frame * 0.82)
    edge = rounded(across, down, person.frame_square).mul_(person.frame)
    lens = cover(edge.clone(), pixel)
    view.paint(lens * 0.10, shot.ambient * 0.8)
    view.mark(lens, "glasses")
    gleam = (across + down).mul_(2).add_(0.9).abs_().neg_().add_(0.45).clamp_(0, 0.35).mul_(lens)
    view.paint(gleam.mul_(0.6), 1.0)
    ring = between(edge, -thick, thick, pixel)
    level = (view.v + 0.03).abs_() - thick
    beyond = (side - middle).abs_()
    bars = cover(level.maximum(person.frame - beyond), pixel).mul_(cover(side - person.head_width * 1.02, pixel))
    ring = ring.maximum(bars)
    view.paint(ring, shot.metal)
    view.mark(ring, "glasses")
    view.relight(ring, view.dome * 0.8 + 0.2)


def draw_front_hair(view: View, person: Person) -> None:
    """Hair over skull, forehead and temples: an outline less the opening for the face."""
    curl = view.hair * style_of(person.style, "curl")
    end = style_of(person.style, "end")
    top, side = 1 + style_of(person.style, "top"), person.head_width + style_of(person.style, "side")
    below = end.clamp(min=0.3) * 1.35
    height = view.v.clamp(max=0).div_(top).add_(view.v.clamp(min=0).div_(below))
    outside = (view.u / side).square_().add_(height.square_()).sqrt_().sub_(1).mul_(side)
    outside = outside.maximum(view.v - end)
    line, half = style_of(person.style, "line"), style_of(person.style, "opening") * person.head_width
    middle = torch.tensor(0.30)
    slanted = view.face + (view.v - middle) * style_of(person.style, "part")
    inside = ellipse(slanted, (view.v - middle).clamp_(max=0), half, middle - line)
    inside = inside.maximum((style_of(person.style, "fringe") - view.v).add_(view.hair * 0.035))
    edge = outside.add_(curl).maximum(inside.add_(curl * 0.4).neg_())
    # the shadow hair casts on the forehead
    shadow = (outside + 0.05).maximum(-0.04 - inside)
    view.light.sub_(cover(shadow, view.pixel + 0.10).mul_(0.28))
    hair = cover(edge, view.pixel)
    view.paint(hair, person.hair)
    view.mark(hair, "hair")
    sheen = blob(torch.zeros_like(view.v), view.v + 0.72 - 0.2 * view.u.square(), 1.0, 0.16).mul_(view.dome)
    view.relight(hair, view.dome * 0.72 + view.hair * 0.24 + 0.26 + sheen.mul_(0.5))


def draw_on(view: View, portrait: Portrait, which: Tensor, draw: Callable[[View, Portrait], None]) -> None:
    """Apply ``draw`` to those photos only for which ``which`` (bool, (n,)) holds."""
    photos = which.nonzero().flatten()
    if len(photos):
        part = view.of(photos)
        draw(part, portrait[photos])
        view.albedo[photos] = part.albedo
        view.light[photos] = part.light
        if view.parts is not None and part.parts is not None:
            view.parts[photos] = part.parts


def render(portrait: Portrait, size: int, alone: bool = False) -> Tensor:
    """Paint n portraits: uint8 (n, 3, size, size). ``alone``: the walls behind them alone."""
    stage = draw_stage(portrait, size)
    return _pixels(stage if alone else painted(portrait, stage), portrait.shot)


def render_with_parts(portrait: Portrait, size: int) -> tuple[Tensor, Tensor]:
    """The same, and how much of each pixel is of each of ``PARTS``, (n, len(PARTS), size, size)."""
    stage = draw_stage(portrait, size)
    parts = torch.zeros(len(stage.pixel), len(PARTS), size, size)
    parts[:, PARTS.index("background")] = 1
    view = painted(portrait, replace(stage, parts=parts))
    return _pixels(view, portrait.shot), parts


def _pixels(view: View, shot: Shot) -> Tensor:
    lit = (view.light * shot.lamp).add_(shot.ambient).mul_(view.albedo)
    return lit.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)


def painted(portrait: Portrait, view: View) -> View:
    """Paint n portraits on their stage, which is returned."""
    person, shot, look = portrait.person, portrait.shot, look_of(portrait.shot)
    long_hair = (style_of(person.style, "back_end") > 0).flatten()
    draw_on(view.crop(-1.4, -1.6, 1.4, 1.9), portrait, long_hair, draw_back_hair)
    draw_body(view.crop(-9, 0.75, 9, 9), person, shot)
    draw_head(view.crop(-1.0, -1.05, 1.0, 1.2), person, look)
    draw_relief(view.crop(-0.75, -0.8, 0.75, 0.65), person, look)
    draw_nose(view.crop(-0.35, -0.25, 0.35, 0.6), person, shot)
    draw_on(view.crop(-0.95, 0.0, 0.95, 1.2), portrait, person.beard.flatten() > 0, draw_beard)
    draw_mouth(view.crop(-0.6, 0.3, 0.6, 1.0), person, look)
    draw_eyes(view.crop(-0.7, -0.3, 0.7, 0.3), person, look)
    draw_brows(view.crop(-0.7, -0.65, 0.7, 0.1), person, look)
    draw_on(view.crop(-0.95, 0.0, 0.95, 1.2), portrait, shot.mask > 0, draw_mask)
    draw_on(view.crop(-0.95, -0.4, 0.95, 0.45), portrait, shot.glasses > 0, draw_glasses)
    draw_front_hair(view.crop(-1.5, -1.6, 1.5, 1.5), person)
    return view
