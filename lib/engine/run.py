"""A training run: what it needs, its Ignite engine, and what happens between the steps."""

from __future__ import annotations

import math
import time
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from lib.configs.load import hierarchy_of
from lib.configs.settings import Settings
from lib.data.batches import to_device
from lib.data.prefetch import Prefetcher
from lib.engine.judge import Judge
from lib.engine.log import LARGEST_WEIGHT, RESIDUAL_RATIO, TrainingLog, step_scalars
from lib.engine.optimise import Guard, clip_gradients
from lib.engine.options import RunOptions as RunOptions
from lib.engine.options import RunResult as RunResult
from lib.engine.prompting import draw_prompts, prompt_generators
from lib.engine.recipe import told
from lib.engine.report import ReportWriter
from lib.engine.run_data import BatchGroup, RunData
from lib.engine.state import RunState
from lib.engine.step import StepContext, StepResult, combined_step
from lib.losses.criterion import Criterion
from lib.networks.devices import (
    amp_type,
    autocast_for,
    average_gradients,
    choose_device,
    compile_backbone,
    mean_over_processes,
)
from lib.networks.weights import check_fits, load_weights, with_new_parts


def train(settings: Settings, options: RunOptions) -> RunResult:
    """Train the enabled modes.

    Raises:
        ValueError: nothing annotated, a checkpoint that does not fit, a bad device.
        NotFiniteError: NaN or Inf in several steps in a row.
    """
    run = Run(settings, options)
    try:
        return run.execute()
    finally:
        run.log.close()


class Run:
    """One training run; see `train`."""

    def __init__(self, settings: Settings, options: RunOptions) -> None:
        self.settings, self.options = settings, options
        self.hierarchy = hierarchy_of(settings)
        self.rank, self.world = idist.get_rank(), idist.get_world_size()
        self.leads = self.rank == 0
        self.data = RunData(settings, options, self.rank)
        self.device = choose_device(options.device)
        training = settings.training
        dtype = amp_type(training, self.device)
        self.autocast = autocast_for(self.device, dtype)
        total = training.max_epochs * training.steps_per_epoch
        self.total = min(total, options.max_steps) if options.max_steps else total
        self.state = RunState(settings, self.hierarchy, self.total, self.device, dtype)
        self._initialise()
        compile_backbone(self.state.net, training)
        self.context = StepContext(
            self.state.net,
            Criterion(settings.loss, self.hierarchy),
            settings,
            self.hierarchy,
            self.autocast,
            self.state.scaler.scale,
        )
        self.state.places, self.state.origins = self.data.place_names(), options.origins
        self.guard = Guard(options.out_dir / "faults", self.leads)
        self.log = TrainingLog(options.out_dir / "events", self.leads, self.state.step)
        self.reports = ReportWriter(options.out_dir, self.leads)
        self.result = RunResult(best=self.state.best)
        self.judge = Judge(
            self.data.places, self.data.old_places, self.state, self.result, options, self.log,
            self.reports, self.device, self.autocast, self.leads,
        )  # fmt: skip
        self._speed = (time.perf_counter(), 0.0)

    @property
    def checkpoint(self) -> Path:
        """The file a killed run goes on from."""
        return self.options.out_dir / "checkpoint.pt"

    def execute(self) -> RunResult:
        """Run to the end, to a stop, or to an error."""
        training = self.settings.training
        loader: Prefetcher[BatchGroup] = Prefetcher(
            self.data.batches, self.state.step, self.total, training.workers
        )
        self._loader = loader
        self.options.note(
            f"{self.data.told()}, steps {self.state.step} to {self.total}, device {self.device}, "
            f"{'mixed precision' if self.state.dtype else 'float32'}"
        )
        if self.options.origins:
            self.options.note(told(self.settings, self.options.origins))
        self.options.note(self.data.shares_told())
        if self.state.step < self.total:
            engine = self._engine()
            engine.run(
                iter(loader),
                max_epochs=math.ceil(self.total / training.steps_per_epoch),
                epoch_length=training.steps_per_epoch,
            )
        else:
            self.options.note(f"{self.checkpoint} is of a finished run: nothing left to train")
        if not self.result.stopped:
            if self.state.validated_at != self.state.step or self.result.report is None:
                self.judge.validate()
            self._save(finished=True)
        self.result.steps, self.result.best = self.state.step, self.state.best
        self.reports.result(self.result)
        return self.result

    def _initialise(self) -> None:
        """The checkpoint to go on from, else the weights to start from, else nothing."""
        options = self.options
        if options.resume and self.checkpoint.exists():
            data = load_weights(self.checkpoint)
            check_fits(self.checkpoint, data, self.settings, self.hierarchy)
            self.state.load_state_dict(data)
            options.note(f"resumed from {self.checkpoint} at step {self.state.step}")
            if self.state.places != self.data.place_names() and self.state.best is not None:
                self.state.best = None
                options.note("validation places have changed: earlier scores no longer count")
            return
        if options.start is not None:
            data = with_new_parts(load_weights(options.start), self.settings, self.hierarchy)
            check_fits(options.start, data, self.settings, self.hierarchy)
            self.state.start_from(data["model"])
            self.state.net.take_fitted(data["meta"])
            options.note(f"started from {options.start}")
        before = () if options.start is None else self.state.net.classes_learned
        if before is not None:  # of a file that does not tell, every class counts
            self.state.net.classes_learned = tuple(sorted({*before, *self.data.classes_taught()}))

    def _engine(self) -> Engine:
        training = self.settings.training
        engine = Engine(lambda _, group: self._step(group))
        engine.load_state_dict(
            {
                "iteration": self.state.step,
                "max_epochs": math.ceil(self.total / training.steps_per_epoch),
                "epoch_length": training.steps_per_epoch,
            }
        )
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        return engine

    def _step(self, group: BatchGroup) -> list[StepResult]:
        """One optimiser step over the accumulated batches."""
        step, host_batches = group
        state, training = self.state, self.settings.training
        state.net.train()
        state.optimiser.zero_grad(set_to_none=True)
        batches = [to_device(batch, self.device) for batch in host_batches]
        results = []
        for k, batch in enumerate(batches):
            generators = prompt_generators(
                training.seed, step * len(batches) + k, self.data.batch_places
            )
            prompts = None
            if "proofread" in training.training_modes:
                prompts = draw_prompts(batch, self.hierarchy, self.settings, generators)
            results.append(
                combined_step(self.context, batch, prompts, 1 / len(batches), generators)
            )
        state.scaler.unscale_(state.optimiser)
        average_gradients(state.net)
        norm = clip_gradients(state.net, training.gradient_clip)
        loss = mean_over_processes(torch.stack([r.loss for r in results]).mean())
        # float16 overflows now and then: the scaler skips that step and lowers its scale.
        overflow = state.scaler.is_enabled() and not bool(torch.isfinite(norm))
        if bool(torch.isfinite(loss)) and (overflow or bool(torch.isfinite(norm))):
            state.advance()
            self.guard.passed()
        else:
            self.guard.failed(step, state.net, batches, results)
            state.skip()
        self._log_step(results, norm)
        return results

    def _log_step(self, results: list[StepResult], norm: torch.Tensor) -> None:
        training, step = self.settings.training, self.state.step
        now, waited = time.perf_counter(), self._loader.waited_seconds
        seconds = max(now - self._speed[0], 1e-9)
        values = step_scalars(results)
        largest = idist.all_reduce(values.pop(LARGEST_WEIGHT), "MAX")
        shared = {k: v for k, v in values.items() if k != RESIDUAL_RATIO}  # others differ by rank
        means = mean_over_processes(torch.stack(list(shared.values())))
        figures: dict[str, float] = dict(zip(shared, means.tolist(), strict=True))
        if RESIDUAL_RATIO in values:
            figures[RESIDUAL_RATIO] = values[RESIDUAL_RATIO].item()
        figures[LARGEST_WEIGHT] = float(largest)
        figures["train/learning_rate"] = float(self.state.schedule.get_last_lr()[0])
        figures["train/gradient_norm"] = float(norm)
        figures["train/samples_per_second"] = (
            training.batch_size * training.accumulate * self.world / seconds
        )
        figures["train/data_wait"] = (waited - self._speed[1]) / seconds
        self._speed = (now, waited)
        self.log.scalars(figures, step)
        self.options.progress(step, self.total, figures)

    def _after_step(self, engine: Engine) -> None:
        wanted = torch.tensor(float(self.options.stop()), device=self.device)
        done = self.state.step >= self.total
        if done and self.state.step % self.settings.training.steps_per_epoch:
            engine.terminate()  # the last epoch is cut short; whole ones end by themselves
        elif not done and float(mean_over_processes(wanted)) > 0:
            self.result.stopped = True
            self.options.note(f"stopped at step {self.state.step}; start again to go on")
            self._save()
            engine.terminate()

    def _after_epoch(self, engine: Engine) -> None:
        training, epoch = self.settings.training, engine.state.epoch
        self.state.epoch = epoch
        due = epoch % training.val_interval == 0 or self.state.step >= self.total
        if due:
            self.judge.validate()
        if epoch % training.image_interval == 0 and self.leads and self.data.places:
            self.judge.show()
        if self.guard.in_a_row == 0:
            self._save()
        self._speed = (time.perf_counter(), self._loader.waited_seconds)

    def _save(self, finished: bool = False) -> None:
        if self.leads:
            self.state.save(self.checkpoint, finished)
        idist.barrier()
