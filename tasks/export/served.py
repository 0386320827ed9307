"""The form of a checkpoint that is registered: stock, if a class of Transformers holds it."""

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.checkpoint import ServedForm
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.export.checkpoint import Checkpoint
from layerwright.tasks.export.stock import export_stock


def served_form(checkpoint: CheckpointRef, ctx: Context) -> ServedForm:
    """Store the stock form of a checkpoint as a tree of its own, or name the checkpoint itself.

    The stock form needs no code of ours. A checkpoint that no stock class holds is served with the
    code that it carries.

    Raises:
        IntegrityError: the stock model does not compute the checkpoint's logits.
    """
    folder = ctx.store.open_tree(checkpoint.sha256)
    config = Checkpoint.open(folder).config
    if config.capabilities["stock"]["model_type"] is None:
        return ServedForm(
            uri=checkpoint.uri,
            sha256=checkpoint.sha256,
            bytes=checkpoint.bytes,
            model_type=config.model_type,
        )
    target = ctx.folder("stock")
    exported = export_stock(folder, target)
    tree = ctx.store.put_tree(target)
    return ServedForm(
        **tree.model_dump(), model_type=exported.model_type, relative_rms=exported.relative_rms
    )
