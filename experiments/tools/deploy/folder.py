"""A deployment: a folder with both halves of a protected network, and all that somebody needs to use them."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from splitleak.defenses.base import Defense
from splitleak.defenses.fitting import SplitModel
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.deploy import runtime
from splitleak.experiments.tools.deploy.card import card_of, card_text
from splitleak.experiments.tools.deploy.halves import Half, InCloud, NotExportableError, OnEdge, exported
from splitleak.experiments.tools.deploy.onnx import write_onnx
from splitleak.experiments.tools.deploy.vectors import Vector, pictures, vectors_of, write_vectors
from splitleak.experiments.tools.deploy.wire import wire_document
from splitleak.experiments.tools.finished import Setting
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.tensors import to_float

RUNTIME, WIRE, CARD, CARD_JSON = "runtime.py", "WIRE.md", "CARD.md", "card.json"


@dataclass(frozen=True)
class Deployment:
    """Both halves of a defence setting, the shape and coding of its release, and what its test vectors are."""

    setting: Setting
    edge: Half
    cloud: Half
    release: dict[str, object]
    vectors: list[Vector]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, setting: Setting, store: Store) -> "Deployment":
        """Load what the run has cached, and follow both halves.

        Raises:
            InvalidInputError: they cannot be deployed; the message says why.
        """
        defense = setting.cells[0].defense.plugin
        if type(defense).cloud is not Defense.cloud:
            raise InvalidInputError(
                f"{setting.label} cannot be deployed: it needs several servers that do not talk to each other, and "
                "a deployment has one"
            )
        task = setting.run.plan.task
        if task is not None and task.form != "class":
            raise InvalidInputError(
                f"{setting.label} cannot be deployed: its network predicts by {task.name}, and the programs' answers "
                "are read as logits of classes"
            )
        model = setting.protect.load(store).cpu()
        data = setting.protect.victim.data.load(store)
        photos = pictures(tuple(data.images["target"].shape[1:]))
        try:
            edge = exported(OnEdge(model), to_float(photos[:1]))
            vectors = vectors_of(model, photos, edge)
            cloud = exported(InCloud(model), vectors[0].release[None])
        except NotExportableError as error:
            raise InvalidInputError(f"{setting.label} cannot be deployed: {error}") from error
        return cls(setting, edge, cloud, _release(setting.label, model, vectors), vectors, data.classes)

    def write(self, folder: Path, told: Callable[[str], None]) -> None:
        """Write all files; ``told`` gets a line on each program.

        Raises:
            InvalidInputError: the folder holds something else, or cannot be written.
        """
        check_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # one that is interrupted here can be told from a folder of somebody's, and is written again
            (folder / runtime.DESCRIPTION).write_text(json.dumps({"format": runtime.UNFINISHED}), encoding="utf-8")
            files, left_out = self._programs(folder, told)
            write_vectors(self.vectors, folder / runtime.VECTORS)
            shutil.copyfile(runtime.__file__, folder / RUNTIME)
            wire = wire_document(self.setting.label, self.release, self.edge, self.cloud, self.vectors)
            (folder / WIRE).write_text(wire, encoding="utf-8")
            card = card_of(self.setting, {"files": files, "left_out": left_out, "torch": torch.__version__})
            (folder / CARD_JSON).write_text(json.dumps(card, indent=1, default=str), encoding="utf-8")
            (folder / CARD).write_text(card_text(card), encoding="utf-8")
            self._describe(folder, left_out)
        except OSError as error:
            raise InvalidInputError(f"--out {folder} cannot be written: {error.strerror}") from error

    def _programs(self, folder: Path, told: Callable[[str], None]) -> tuple[dict[str, str], dict[str, str]]:
        """Write them; what each is, and why others are left out, by the name of the file."""
        files: dict[str, str] = {}
        left_out: dict[str, str] = {}
        for name, half, checked in (("edge", self.edge, self._sent()), ("cloud", self.cloud, self._answered())):
            program, converted = folder / f"{name}.pt2", folder / f"{name}.onnx"
            torch.export.save(half.exported, program)
            files[program.name] = f"by torch.export; {_drawing(half)}"
            converted.unlink(missing_ok=True)
            try:
                files[converted.name] = (
                    f"ONNX; {_drawing(half)}; onnxruntime is {write_onnx(half, converted, checked)}"
                )
            except NotExportableError as error:
                left_out[converted.name] = str(error)
            for file in (program, converted):
                told(f"{file.name}: {files.get(file.name) or f'left out: {left_out[file.name]}'}")
        return files, left_out

    def _sent(self) -> list[tuple[tuple[Tensor, ...], Tensor]]:
        return [((to_float(one.photo[None]), *one.draws), one.release[None]) for one in self.vectors]

    def _answered(self) -> list[tuple[tuple[Tensor, ...], Tensor]]:
        """What the cloud's program makes of releases; one that draws is compared with itself."""
        run = self.cloud.exported.module()
        given = [(one.release[None].contiguous(), *self.cloud.inputs[1:]) for one in self.vectors]
        with torch.no_grad():
            return [(inputs, run(*inputs)) for inputs in given]

    def _describe(self, folder: Path, left_out: dict[str, str]) -> None:
        programs = sorted([*folder.glob("*.pt2"), *folder.glob("*.onnx")])
        description = {
            "format": runtime.FORMAT,
            "defence": self.setting.label,
            "photo": list(self.vectors[0].photo.shape),
            "release": self.release,
            "task": self.setting.run.plan.victim.task,
            "classes": list(self.classes),
            "edge": self.edge.described,
            "cloud": self.cloud.described,
            "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in programs},
            "left_out": left_out,
        }
        (folder / runtime.DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")


def check_folder(folder: Path) -> None:
    """Whether a deployment may be written there.

    Raises:
        InvalidInputError: it holds something else, or is a file.
    """
    try:
        other = folder.exists() and any(folder.iterdir()) and not (folder / runtime.DESCRIPTION).is_file()
    except OSError as error:
        raise InvalidInputError(f"--out {folder} cannot be written: {error.strerror}") from error
    if other:
        raise InvalidInputError(f"--out {folder} holds other files; name an empty folder or a new one")


def _release(label: str, model: SplitModel, vectors: list[Vector]) -> dict[str, object]:
    """Shape and coding, tried out on the vectors.

    Raises:
        InvalidInputError: no kind of coding says how the channel packs, or not as it does.
    """
    coding = model.channel.coding()
    described: dict[str, object] = {"shape": list(vectors[0].release.shape), "coding": coding}
    if coding is None or coding["kind"] not in runtime.CODINGS:
        raise InvalidInputError(
            f"{label} cannot be deployed: its channel packs in a way of its own; let its method coding say which of "
            f"{', '.join(runtime.CODINGS)} that is"
        )
    wire = runtime.Wire(described)
    if any(wire.pack(one.release.contiguous().numpy()) != one.packed for one in vectors):
        raise InvalidInputError(f"{label} cannot be deployed: it does not pack as coding = {coding} says")
    return described


def _drawing(half: Half) -> str:
    count = len(half.draws)
    if count == 0:
        return "draws nothing"
    return f"{count} random inputs, drawn outside" if count > 1 else "a random input, drawn outside"
