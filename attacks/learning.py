"""How attacks train a network: on batches of what they know, selected on batches held out."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from splitleak.attacks.knowledge import QueryFree
from splitleak.victims.training import Batch, Recipe, Training, train


def learned(
    network: nn.Module,
    recipe: Recipe,
    examples: Iterable[Batch],
    held_out: Iterable[Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
    knows: QueryFree,
) -> dict[str, Tensor]:
    """Train ``network`` in place and return its state with the least loss over what was held out.

    Args:
        network: its floating-point parameters are moved, in eval mode afterwards. A plain function of tensors, see
            ``Training.plain``: what is random ``loss`` hands to it.
        recipe: epochs, optimizer, schedule.
        examples: batches, iterated anew in each epoch; ``len()`` gives the steps.
        held_out: batches, iterated anew after each epoch, each time under the same random draws.
        loss: (network, batch) -> mean over the batch's images.
        knows: its log takes each epoch's row; the queries that it counts are part of a checkpoint.

    Raises:
        FloatingPointError: the loss stopped being finite.
    """

    def validation(model: nn.Module) -> float:
        losses = [(float(loss(model, batch)), len(batch[0])) for batch in held_out]
        return sum(value * count for value, count in losses) / sum(count for _, count in losses)

    optimizer = recipe.optimizer(network.parameters())
    training = Training(network, optimizer, examples, also={"knows": knows}, plain=True)
    train(training, recipe, loss, validation, knows.log)
    return network.state_dict()
