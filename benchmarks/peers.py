"""The loops of other libraries on one process, each minimal: no progress bar, no loggers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.workload import CLIP_NORM, Work

LOG_EVERY = 10


def bare(work: Work) -> torch.nn.Module:
    """A hand-written loop."""
    model = work.model()
    optimizer = work.optimizer(model)
    schedule = work.schedule(optimizer)
    for batch in work.batches():
        work.loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model


def accelerate(work: Work) -> torch.nn.Module:
    """Hugging Face Accelerate around the bare loop."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=work.device == "cpu")
    plain = work.model()
    optimizer = work.optimizer(plain)
    model, optimizer, schedule = accelerator.prepare(plain, optimizer, work.schedule(optimizer))
    for batch in accelerator.prepare_data_loader(work.loader()):
        accelerator.backward(work.loss(model, batch))
        accelerator.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return plain


def fabric(work: Work) -> torch.nn.Module:
    """Lightning Fabric around the bare loop."""
    from lightning.fabric import Fabric

    lightning = Fabric(accelerator="cpu" if work.device == "cpu" else "cuda", devices=1)
    plain = work.model()
    model, optimizer = lightning.setup(plain, work.optimizer(plain))
    schedule = work.schedule(optimizer)
    loader: Any = lightning.setup_dataloaders(work.loader())
    for batch in loader:
        lightning.backward(work.loss(model, batch))
        lightning.clip_gradients(model, optimizer, max_norm=CLIP_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return plain


def lightning_trainer(work: Work) -> torch.nn.Module:
    """Lightning's Trainer."""
    from lightning.pytorch import LightningModule, Trainer

    class Learner(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = work.model()

        def training_step(self, batch: Mapping[str, Any]) -> Tensor:
            return work.loss(self.model, batch)

        def configure_optimizers(self) -> Any:
            optimizer = work.optimizer(self.model)
            schedule = {"scheduler": work.schedule(optimizer), "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": schedule}

    trainer = Trainer(
        accelerator="cpu" if work.device == "cpu" else "cuda",
        devices=1,
        max_steps=work.steps,
        gradient_clip_val=CLIP_NORM,
        log_every_n_steps=LOG_EVERY,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    learner = Learner()
    trainer.fit(learner, work.loader())
    return learner.model


def transformers_trainer(work: Work) -> torch.nn.Module:
    """Transformers' Trainer."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    class OurLoss(Trainer):
        def get_train_dataloader(self) -> Any:
            return work.loader()

        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Tensor:
            return work.loss(model, inputs)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=work.steps,
            per_device_train_batch_size=work.micro_batch,
            max_grad_norm=CLIP_NORM,
            logging_steps=LOG_EVERY,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=work.device == "cpu",
            remove_unused_columns=False,
        )
        model = work.model()
        optimizer = work.optimizer(model)
        trainer = OurLoss(
            model,
            arguments,
            train_dataset=work.samples,
            optimizers=(optimizer, work.schedule(optimizer)),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model


PEERS: dict[str, Callable[[Work], torch.nn.Module]] = {
    "bare PyTorch": bare,
    "Accelerate": accelerate,
    "Lightning Fabric": fabric,
    "Lightning Trainer": lightning_trainer,
    "transformers Trainer": transformers_trainer,
}
