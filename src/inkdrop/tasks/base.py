"""The training loop that all models share. It only connects parts; the mathematics is elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Any, TypeAlias

import torch
from annotated_types import Ge, Gt
from lightning.pytorch import Callback, LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from inkdrop.checkpoints.content import require_fit
from inkdrop.denoiser import Condition
from inkdrop.errors import CheckpointError, NonFiniteError, listed
from inkdrop.loggers.rows import Rows, record
from inkdrop.losses import Example, Loss, LossTerms
from inkdrop.models import Model
from inkdrop.randomness import Generators, same_dropout
from inkdrop.schedules import Schedule
from inkdrop.tasks import learning_rate
from inkdrop.tasks.guard import GradientGuard, refuses_itself, scale_of
from inkdrop.tasks.soundness import RecentLosses
from inkdrop.time_samplers import spread

Batch: TypeAlias = dict[str, Tensor]


class Task(LightningModule):
    """Minimises a loss over all trainable parameters of a model.

    Every random number is a function of `seed` and of the sample's position in the run. Validation uses the same noise
    and the same times for each item whatever the seed, so that runs are comparable.

    - `pipeline`: the model with its codec, for diffusion a `Pipeline`.
    - `loss`: the training objective.
    - `optimizer`: a function from parameters to an optimizer.
    - `scheduler`: a function from the optimizer to a learning-rate scheduler, stepped once per optimizer step.
    - `seed`: the random seed of training.
    - `max_skipped_steps`: the number of steps in the whole run that may be skipped because the loss or the gradient is
      not finite. They count as steps, but change nothing.
    - `max_gradient_norm`: a step with a larger norm of the gradient counts as not finite.
    - `weight`: the field of the data with the weights of samples (B) or of elements (B, *) in the loss.

    A step that is not finite raises `NonFiniteError` before anything is changed, unless it may be skipped.
    """

    estimate: str  # what the network estimates, as a formula

    def __init__(
        self,
        pipeline: Model,
        loss: Loss,
        optimizer: Callable[[Iterable[torch.nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer], Any],
        seed: Annotated[int, Ge(0)] = 0,
        max_skipped_steps: Annotated[int, Ge(0)] = 0,
        max_gradient_norm: Annotated[float, Gt(0)] | None = None,
        weight: str | None = None,
    ):
        super().__init__()
        self.pipeline: Any = pipeline
        self.loss = loss
        self.optimizer, self.scheduler, self.seed, self.weight = optimizer, scheduler, seed, weight
        self.guard = GradientGuard(max_skipped_steps, max_gradient_norm)
        self._trained: dict[str, list[torch.nn.Parameter]] = {}
        self.begun = False  # whether everything is restored and training has started
        self.updated = False  # whether the latest optimizer step changed the weights
        self.validated_at = -1
        self._validated = RecentLosses()
        self._step_values: list[Tensor] = []  # of the batches since the last optimizer step
        self.config: dict[str, Any] = {}  # resolved and plain; checkpoints contain it, so that they suffice alone
        self.models: dict[str, Any] = {}  # what a checkpoint keeps of models within this one, by place
        self.facts: dict[str, Any] = {}  # what else the result depends on: versions, threads, commit
        self.check()
        try:
            self.configure_optimizers()
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"optimizer or scheduler: {error}") from None

    def check(self) -> None:
        """Raises `ValueError` if the loss cannot train this model."""

    @abstractmethod
    def advice(self, run: str) -> dict[str, Any]:
        """Returns options of sample.py that use the model of a run folder."""

    @property
    def schedule(self) -> Schedule | None:
        """The schedule of the training times, or None for a model without times."""
        return None

    @abstractmethod
    def terms(self, batch: Batch, generators: Generators, t: Tensor | None = None) -> LossTerms:
        """Computes the loss of a batch at drawn times, as in training, or at given times t (B).

        A task without times is given none, and finds in `self.training` whether it trains.
        """

    def example(self, x_0: Tensor, cond: Condition, batch: Batch) -> Example:
        """Returns the batch as the loss receives it."""
        return Example(x_0, cond, batch, self.pipeline.codec, self._weight(x_0, batch), self._progress(batch))

    def _weight(self, x_0: Tensor, batch: Batch) -> Tensor | None:
        if self.weight is None:
            return None
        if self.weight not in batch:
            raise ValueError(f"task.weight={self.weight} is not a field of the data: available: {', '.join(batch)}")
        weight = batch[self.weight]
        if weight.dim() not in (1, x_0.dim()):
            shapes = f"{list(weight.shape)}, but samples are {list(x_0.shape)}"
            raise ValueError(f"task.weight={self.weight} has the shape {shapes}: make it (B), or of as many axes")
        return weight

    def _progress(self, batch: Batch) -> Tensor | None:
        """Returns the share (B) of the samples of the run that precede each of these; None outside of a run."""
        trainer: Any = self._trainer
        if trainer is None or trainer.datamodule is None or trainer.max_steps < 1:
            return None
        if not trainer.training:  # held-out items are evaluated between two steps, wherever they lie in their split
            return torch.full_like(batch["position"], trainer.global_step / trainer.max_steps, dtype=torch.float32)
        total = trainer.max_steps * trainer.accumulate_grad_batches * trainer.datamodule.batch_size
        return (batch["position"].double() / total).clamp(max=1).float()

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """Returns the mean loss, and for each sample the times and the unweighted error."""
        generators = Generators.from_positions(self.seed, batch["position"].tolist()).at("train")
        same_dropout(generators)
        terms = self.terms(batch, generators)
        self.guard.losses.add(terms.loss, batch["position"])
        loss = terms.loss.mean()
        # An infinite loss can have a finite gradient. 0 inf is NaN, so that the gradient of an infinite loss is never
        # finite: checking the gradient is enough, and gives the same result on every rank.
        loss = loss * (1 + 0 * loss.detach())
        self._log("train", self._over_step(self._means(loss.detach(), terms)), terms)
        times = {} if terms.t is None else {"t": terms.t}
        return {"loss": loss, **times, **{name: part.detach() for name, part in terms.parts.items()}}

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Logs the mean loss over the held-out split, at times that are spread evenly in any part of the split."""
        items = batch["position"].tolist()
        t = None if self.schedule is None else spread(self.schedule, items)
        terms = self.terms(batch, Generators.from_positions(0, items).at("validation"), t)
        self._validated.add(terms.loss, batch["position"])
        self._log("validation", self._means(terms.loss.mean(), terms), terms, on_epoch=True, sync_dist=True)

    def _means(self, loss: Tensor, terms: LossTerms) -> dict[str, Tensor]:
        return {"loss": loss, **{name: terms.parts[name].detach().mean() for name in self.loss.logged}}

    def _log(self, stage: str, values: Mapping[str, Tensor], terms: LossTerms, **how: Any) -> None:
        for name, value in values.items():
            self.log(f"{stage}/{name}", value, batch_size=len(terms.loss), **how)

    def _over_step(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns means over the batches of this step so far and, in steps that are logged, over all ranks."""
        trainer: Any = self._trainer
        if trainer is None or trainer.accumulate_grad_batches == trainer.world_size == 1:
            return values
        self._step_values.append(torch.stack([value.float() for value in values.values()]))
        mean = torch.stack(self._step_values).mean(0)
        if trainer.world_size > 1 and (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            torch.distributed.all_reduce(mean)
            mean /= trainer.world_size
        return dict(zip(values, mean, strict=True))

    def on_validation_epoch_end(self) -> None:
        """Records the step of this validation; raises `NonFiniteError` with the items whose loss is not finite."""
        self.validated_at = self.trainer.global_step
        wrong = self._validated.wrong(None)
        self._validated.clear()
        if wrong:
            step = self.validated_at
            raise NonFiniteError(f"validation after optimizer step {step}: the loss is not finite at {listed(wrong)}")

    def configure_optimizers(self) -> Any:
        """Returns the optimizer of all trainable parameters, and the scheduler, which is stepped once per step."""
        optimizer, scheduler = self._begun()
        optimizer.register_step_post_hook(self._note_step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """Returns the trainable parameters in groups by name, which one optimizer steps together; by default one group.

        Each has its own norm of the gradient, in clipping and in the log, as the two players of a GAN need.
        """
        players = {
            name: [parameter for parameter in player.parameters() if parameter.requires_grad]
            for name, player in self.loss.players.items()
        }
        apart = {id(parameter) for player in players.values() for parameter in player}
        others = [each for each in self.parameters() if each.requires_grad and id(each) not in apart]
        return {"model" if players else "": others, **players}

    def _begun(self) -> tuple[Optimizer, LRScheduler]:
        groups = list(self.groups().values())
        several: Any = [{"params": each} for each in groups]
        optimizer = self.optimizer(groups[0] if len(groups) == 1 else several)
        return optimizer, learning_rate.made(self.scheduler, optimizer)

    def foresee(self, num_steps: int) -> None:
        """Raises `ValueError` if the scheduler ends before this step, or returns an invalid learning rate."""
        try:
            learning_rate.foresee(self._begun()[1], num_steps)
        except ValueError as error:
            raise ValueError(f"scheduler: {error}") from None

    def _note_step(self, *_: Any) -> None:
        self.updated = self.guard.finite  # never called where the fp16 scaler skips a step

    def once_updated(self, action: Callable[[], None]) -> None:
        """Calls this if the latest step changed the weights, as soon as that is known, and before the next step."""
        if self.guard.awaited is not None:
            self.guard.awaited.actions.append(action)
        elif self.updated:
            action()

    def settle(self) -> None:
        """Waits for the verdict on the latest step; whoever reads the weights calls it first.

        Raises `NonFiniteError` for a step that was refused and must not be skipped.
        """
        self.guard.settle(self)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Steps the learning rate if the weights changed."""
        self.once_updated(partial(super().lr_scheduler_step, scheduler, metric))

    def on_before_zero_grad(self, optimizer: Optimizer) -> None:
        """Settles the step before while its gradients are still there; the device works on the forward pass."""
        self.settle()

    def on_validation_model_zero_grad(self) -> None:
        """Settles the latest step, and removes its gradients."""
        self.settle()
        super().on_validation_model_zero_grad()

    def on_train_end(self) -> None:
        """Settles the last step."""
        self.settle()

    def configure_callbacks(self) -> list[Callback]:
        """Returns the callback that writes the values of a step as one row."""
        return [Rows()]

    def on_train_start(self) -> None:
        """Clears the losses of an earlier training, and looks up what is trained once for all steps."""
        self.begun, self._trained, self._step_values = True, self.groups(), []
        self.guard.losses.clear()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Computes the norm of the gradient once, and uses it to check, to log and to clip the gradient.

        Each group of parameters is clipped by its own norm.
        """
        trainer: Any = self.trainer
        self.updated, groups = False, self._trained
        logged = (trainer.global_step + 1) % trainer.log_every_n_steps == 0
        late = not logged and refuses_itself(self, optimizer)  # a step that is logged is read in any case
        self.guard.disarm(optimizer)
        norms = (self.guard.arm if late else self.guard.check)(self, optimizer, groups)
        scale = scale_of(self, optimizer)
        if norms and logged:  # Lightning's self.log is expensive
            for name, norm in norms.items():
                self.log(f"train/gradient_norm{name and f'_{name}'}", norm)
            record(trainer, {"train/learning_rate": optimizer.param_groups[0]["lr"]}, trainer.global_step + 1)
        if norms and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            if late and len(norms) == 1:  # the optimizer divides by it while it reads the gradients
                self.guard.scale(optimizer, next(iter(norms.values())), gradient_clip_val)
                norms = {}
            for name, norm in norms.items():
                parameters = [parameter for parameter in groups[name] if parameter.grad is not None]
                torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val * scale, norm * scale)
        elif norms and gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        self._step_values.clear()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the count of skipped steps; raises `CheckpointError` if the weights do not fit this model."""
        try:
            require_fit(checkpoint["state_dict"], self.state_dict(), types=True)
        except ValueError as error:
            raise CheckpointError(f"{self.trainer.ckpt_path}: {error}") from None
        self.guard.skipped_steps = checkpoint.get("skipped_steps", 0)
        before, now = (config.get("task", {}) for config in (checkpoint.get("config", {}), self.config))
        if any(before.get(part) != now.get(part) for part in ("optimizer", "scheduler")):
            kinds = [(config.get("optimizer") or {}).get("_target_") for config in (before, now)]
            learning_rate.rewrite(checkpoint, *self._begun(), afresh=kinds[0] != kinds[1])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the configuration, the facts, the data's fingerprint and classes, and the names of trained weights."""
        checkpoint["trainable"] = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        checkpoint["skipped_steps"] = self.guard.skipped_steps
        checkpoint["config"], checkpoint["facts"] = self.config, self.facts
        checkpoint |= {"models": self.models} if self.models else {}
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        checkpoint["data_fingerprint"], checkpoint["classes"] = data.fingerprint, list(data.classes)
