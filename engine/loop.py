"""The training loop: `fit` trains any Task and returns the record of the run.

The order within step s is fixed: train, save where due, evaluate where due. A run that is stopped anywhere and resumed
repeats nothing that counts and skips nothing, so its weights, optimiser state and metrics equal an uninterrupted run's
bit for bit (on one CPU; on CUDA up to its own nondeterminism).
"""

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from engine import resume as checkpointing
from engine.config import RunConfig, as_json
from engine.cost import count_parameters
from engine.curves import CURVES_NAME, draw_curves
from engine.data import Batch, Shard, train_batches
from engine.device import device_name, make_fabric, peak_memory
from engine.evaluation import Evaluated, evaluate, write_results
from engine.identity import check_folder, run_id, write_identity
from engine.log import CSV_NAME, RunLog, duration
from engine.meter import Meter
from engine.optim import build_optimizer, group_table, set_lr
from engine.processes import from_all, on_any
from engine.provenance import git_commit, library_versions
from engine.record import Cost, Evaluation, RunRecord, Status, write_record, write_weights_report
from engine.resume import Progress
from engine.schedule import lr_factor
from engine.seeding import derive, seed_all
from engine.stop import StopRequest, stop_requests
from engine.task import InitialWeights, Task

EXIT_CODES: dict[Status, int] = {"completed": 0, "failed": 1, "running": 1, "interrupted": 130}


class NonFiniteError(ArithmeticError):
    """The loss or the gradient became NaN or infinite."""


def fit(
    task: Task, config: Any, *, recipe: str, out: Path, resume: bool = False, departures: tuple[str, ...] = ()
) -> RunRecord:
    """Train `task` as `config.run` says, into `out`, and return its record (completed or interrupted).

    `departures` is what the record says of the recipe (engine.recipe).

    A run that fails leaves a record that says so, and its exception is raised. Raises ValueError before training where
    `out` holds another run.
    """
    run: RunConfig = config.run
    facts = task.facts
    identity = {
        "recipe": recipe,
        "config": as_json(config),
        "weights": facts.weights.sha256,
        "data": {
            "train_split": facts.train_split,
            "val_split": facts.val_split,
            "train_images": facts.train_images,
            "val_images": facts.val_images,
            **facts.extra,
        },
    }
    check_folder(out, identity, resume=resume)
    fabric = make_fabric(run.precision)
    session = _Session(task, config, recipe, out, fabric, run_id(identity), departures)
    if fabric.is_global_zero:
        write_weights_report(out, facts.weights)
        write_identity(out, identity)  # after all that may refuse the run, so that a refusal leaves nothing
    fabric.barrier()
    with stop_requests() as stop:
        return session.run(stop)


@dataclass
class _Written:
    """Files a run has left so far."""

    results: str | None = None
    pictures: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


class _Session:
    """One process's life of a run: from its start or its last checkpoint to its end."""

    def __init__(
        self,
        task: Task,
        config: Any,
        recipe: str,
        out: Path,
        fabric: Fabric,
        identifier: str,
        departures: tuple[str, ...],
    ) -> None:
        self.task, self.config, self.recipe, self.out, self.fabric = task, config, recipe, out, fabric
        self.departures = departures
        self.run_config: RunConfig = config.run
        self.identifier = identifier
        run = self.run_config
        sizes = {"batch_size": run.batch_size, "dataset_size": len(task.train_data)}
        self.total = run.length.steps(**sizes)
        if self.total < 1:
            raise ValueError(f"the run's length, {run.length.value} {run.length.unit}, is less than one step.")
        self.warmup = run.schedule.warmup.steps(**sizes)
        self.eval_every = max(1, run.eval_every.steps(**sizes)) if run.eval_every else self.total
        self.save_every = max(1, run.save_every.steps(**sizes)) if run.save_every else self.total
        self.peak_lr = run.optim.lr(run.batch_size)
        self.groups = task.param_groups(run.optim)
        self.parameters = count_parameters(task.model)
        self.shard = Shard(fabric.global_rank, fabric.world_size, run.accumulate)
        self.shard.positions(0, run.batch_size)  # refuses a batch that cannot be shared
        self.written = _Written()
        self.commit = git_commit()

    def run(self, stop: StopRequest) -> RunRecord:
        """Train to the end, or to the request to stop; return the record."""
        self.began = time.monotonic()
        # the module and optimiser that checkpoints hold, and Fabric's wrappers around them
        bare = self.task.model, build_optimizer(self.groups, self.run_config.optim, peak_lr=self.peak_lr)
        module: Any = self.fabric.setup_module(bare[0])
        optimizer = self.fabric.setup_optimizers(bare[1])
        restored, problems = checkpointing.load_latest(self.out, model=bare[0], optimizer=bare[1])
        self.progress = restored or Progress(started=_now())
        self.before_seconds = self.progress.total_seconds
        self.log = RunLog(
            self.out,
            label=self.task.name,
            total_steps=self.total,
            first_step=self.progress.step,
            speaks=self.fabric.is_global_zero,
            evaluated=self._evaluated(),
        )
        self._introduce(problems, resumed=restored is not None)
        status: Status = "failed"
        error: str | None = None
        self._write_record("running")
        try:
            self.log.start()
            if self._train(module, optimizer, bare, stop):
                self._finish()
                status = "completed"
            else:
                status, error = "interrupted", stop.signal_name or "stopped by another process"
        except BaseException as exception:
            error = f"{type(exception).__name__}: {exception}"
            raise
        finally:
            self.log.close()
            record = self._write_record(status, error)
            self._conclude(record)
        return record

    def _train(self, module: Any, optimizer: Any, bare: tuple[nn.Module, Any], stop: StopRequest) -> bool:
        """Train and evaluate to the last step; return False where stopped before, with everything saved."""
        run, progress = self.run_config, self.progress
        if not self._evaluate_if_due(stop):  # a run stopped between its checkpoint and its evaluation
            return False
        module.train()
        steps = range(progress.step, self.total)
        batches = train_batches(
            self.task,
            seed=run.seed,
            steps=steps,
            batch_size=run.batch_size,
            shard=self.shard,
            workers=run.workers,
        )
        meter = Meter()
        saved = progress.step
        for step in steps:
            if on_any(self.fabric, bool(stop)):
                if saved != progress.step:
                    self._save(bare)
                return False
            meter.begin()
            lr = self.peak_lr * lr_factor(run.schedule, step, total_steps=self.total, warmup_steps=self.warmup)
            set_lr(optimizer, lr)
            losses, norm, waited = self._step(module, optimizer, batches, step, lr)
            progress.step = step + 1
            progress.losses = losses
            meter.end(waited)
            progress.train_seconds += meter.seconds
            progress.wait_seconds += waited
            values = {**losses, "lr": lr, "grad_norm": norm, **meter.rates(run.batch_size)}
            due = progress.step % run.log_every == 0 or progress.step in (1, self.total)
            self.log.step(progress.step, values, write=due)
            if progress.step % self.save_every == 0 or progress.step == self.total:
                self._save(bare)
                saved = progress.step
            if self._evaluation_due():
                if not self._evaluate_if_due(stop):
                    if saved != progress.step:
                        self._save(bare)
                    return False
                module.train()
        self._save(bare)  # the last checkpoint holds the last evaluation
        return True

    def _step(
        self, module: Any, optimizer: Any, batches: Any, step: int, lr: float
    ) -> tuple[dict[str, float], float, float]:
        """One optimiser step; return named losses with their sum `loss`, the gradient norm and the seconds waited."""
        run, fabric = self.run_config, self.fabric
        sums: dict[str, float] = {}
        waited = 0.0
        for micro in range(run.accumulate):
            start = time.monotonic()
            batch: Batch = next(batches)
            data = fabric.to_device(batch.data)
            waited += time.monotonic() - start
            if on_any(fabric, bool(batch.unreadable)):  # counted alike everywhere: all stop at the limit together
                found = [(error.path, error.reason) for error in batch.unreadable]
                self._count_unreadable(dict(from_all(fabric, found)))
            seed_all(derive(run.seed, "step", step, micro, fabric.global_rank))
            with fabric.no_backward_sync(module, enabled=micro < run.accumulate - 1):
                losses: dict[str, Tensor] = module(data)
                loss = torch.stack([value.float() for value in losses.values()]).sum()
                bad = not bool(torch.isfinite(loss))
                if on_any(fabric, bad):
                    culprits = from_all(fabric, batch.ids if bad else ())
                    raise self._non_finite("the loss", step, culprits, losses, lr)
                fabric.backward(loss / run.accumulate)
            for name, value in {**losses, "loss": loss}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / run.accumulate
        if run.optim.clip_norm is not None:
            norm = fabric.clip_gradients(module, optimizer, max_norm=run.optim.clip_norm, error_if_nonfinite=False)
        else:
            norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
        norm_value = float(norm) if norm is not None else 0.0
        # float16 scaling overflows now and then by design: its scaler skips the step
        if run.precision != "16-mixed" and not torch.isfinite(torch.tensor(norm_value)):
            raise self._non_finite("the gradient", step, from_all(fabric, batch.ids), losses, lr)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return sums, norm_value, waited

    def _evaluation_due(self) -> bool:
        step = self.progress.step
        return step > 0 and (step % self.eval_every == 0 or step == self.total)

    def _evaluated(self) -> bool:
        evaluations = self.progress.evaluations
        return bool(evaluations) and evaluations[-1]["step"] == self.progress.step

    def _evaluate_if_due(self, stop: StopRequest) -> bool:
        """Evaluate where due and not done; return False where stopped."""
        progress = self.progress
        done = self._evaluated()
        final = progress.step == self.total
        # the last evaluation also makes the results file and the pictures, which no checkpoint holds
        if not self._evaluation_due() or (done and not final):
            return True
        evaluated = evaluate(
            self.task, self.run_config, self.fabric, stop=lambda: bool(stop), progress=self.log.evaluating
        )
        if evaluated is None:
            return False
        self._count_unreadable(evaluated.unreadable)
        if not done:
            progress.evaluations.append({"step": progress.step, "metrics": evaluated.metrics})
            self.log.scalars(progress.step, {f"val/{name}": value for name, value in evaluated.metrics.items()})
        self.log.say(f"step {progress.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in evaluated.metrics.items()))
        if final:
            self._keep_results(evaluated)
        self._write_record("running")
        return True

    def _keep_results(self, evaluated: Evaluated) -> None:
        if not self.fabric.is_global_zero:
            return
        self.written.results = write_results(self.out, evaluated.results).name
        pictures = self.task.draw(evaluated.results, self.out / "pictures")
        curves = draw_curves(self.out / CSV_NAME, self.out / "pictures" / CURVES_NAME)
        self.written.pictures = self._relative([*pictures, *([curves] if curves else [])])

    def _finish(self) -> None:
        if self.fabric.is_global_zero:
            self.written.outputs = self._relative(self.task.finish(self.out))
        self.fabric.barrier()

    def _save(self, bare: tuple[nn.Module, Any]) -> None:
        self.progress.total_seconds = self.before_seconds + time.monotonic() - self.began
        if self.fabric.is_global_zero:
            checkpointing.save(
                self.out,
                model=bare[0],
                optimizer=bare[1],
                progress=self.progress,
                keep_last=self.run_config.keep_last,
            )
        self.fabric.barrier()

    def _count_unreadable(self, found: dict[str, str]) -> None:
        """Say and count unreadable images; raise ValueError above the limit."""
        known, limit = self.progress.unreadable, self.run_config.max_unreadable
        for path, reason in found.items():
            if path not in known:
                known[path] = reason
                self.log.say(f"warning: {path}: unreadable image ({reason}); left out, {len(known)} so far.")
        if len(known) > limit:
            raise ValueError(
                f"{len(known)} images cannot be read, more than max_unreadable = {limit}; the last: "
                f"{next(reversed(known))}. Mend or remove them, or raise the limit in the recipe."
            )

    def _non_finite(
        self, what: str, step: int, images: list[str], losses: dict[str, Tensor], lr: float
    ) -> NonFiniteError:
        saved = checkpointing.checkpoints(self.out)
        named = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
        return NonFiniteError(
            f"{what} is not finite at step {step} ({named} on process {self.fabric.global_rank}; lr {lr:.3g}); "
            f"images of the batch: {', '.join(images)}. Last good checkpoint: {saved[-1] if saved else 'none yet'}. "
            "Lower the learning rate, clip the gradient (clip_norm), or train in 32-true."
        )

    def _introduce(self, problems: list[str], *, resumed: bool) -> None:
        facts, run, say = self.task.facts, self.run_config, self.log.say
        say(f"{self.task.name} {self.recipe}: {facts.train_images} training and {facts.val_images} validation images")
        for line in facts.data_notes:
            say(f"  data: {line}")
        if facts.weights.source == "random":
            say("  weights: RANDOM (no --init was given)")
        for line in facts.weights.lines():
            say(f"  weights: {line}")
        lr_rule = f"{run.optim.base_lr:g} at batch {run.optim.base_batch_size}, {run.optim.lr_scaling} rule"
        each = run.batch_size // (run.accumulate * self.fabric.world_size)
        shared = f"{self.fabric.world_size} process(es) x {run.accumulate} micro-batch(es) x {each} images"
        say(f"  batch {run.batch_size} ({shared}), {self.total} steps, peak lr {self.peak_lr:.3g} ({lr_rule})")
        say(f"  departures: {'; '.join(self.departures) or 'none, the recipe as it is'}")
        say(f"  {device_name(self.fabric.device)}, {self.fabric.world_size} process(es), {_precision(self.fabric)}")
        for line in group_table(self.groups, self.peak_lr):
            say(f"  {line}")
        if 0 < self.total <= self.warmup:
            problems = [*problems, f"the warm-up of {self.warmup} steps covers the whole run of {self.total}."]
        for problem in problems:
            say(f"warning: {problem}")
        if resumed:
            say(f"  resuming after step {self.progress.step} of {self.total}")

    def _conclude(self, record: RunRecord) -> None:
        say = self.log.say
        if record.status == "interrupted":
            say(f"interrupted by {record.error} after step {record.steps}; saved. Continue with --resume.")
        if record.status == "completed":
            say(f"done in {duration(record.cost.total_seconds)}: {self.out / 'record.json'}")
            for name in (*record.outputs, *record.pictures):
                say(f"  {self.out / name}")

    def _write_record(self, status: Status, error: str | None = None) -> RunRecord:
        record = self._record(status, error)
        if self.fabric.is_global_zero:
            try:
                write_record(self.out, record)
            except OSError as problem:
                if status != "failed":
                    raise
                self.log.say(f"warning: the record of the failure was not written: {problem}")
        return record

    def _record(self, status: Status, error: str | None) -> RunRecord:
        facts, progress, run = self.task.facts, self.progress, self.run_config
        seen = progress.step * run.batch_size
        seconds = progress.train_seconds
        return RunRecord(
            run_id=self.identifier,
            task=self.task.name,
            recipe=self.recipe,
            status=status,
            seed=run.seed,
            steps=progress.step,
            total_steps=self.total,
            samples_seen=seen,
            data=facts.data,
            train_split=facts.train_split,
            val_split=facts.val_split,
            train_images=facts.train_images,
            val_images=facts.val_images,
            data_notes=facts.data_notes,
            unreadable_images=tuple(f"{path}: {reason}" for path, reason in progress.unreadable.items()),
            architecture=facts.architecture,
            weights_source=facts.weights.source,
            weights_path=facts.weights.path,
            weights_sha256=facts.weights.sha256,
            weights_report=tuple(facts.weights.lines()),
            primary_metric=self.task.primary_metric,
            metrics=dict(progress.evaluations[-1]["metrics"]) if progress.evaluations else {},
            evaluations=tuple(Evaluation(**e) for e in progress.evaluations),
            losses=progress.losses,
            cost=Cost(
                parameters=self.parameters,
                flops_per_image=facts.flops_per_image,
                images_per_second=seen / seconds if seconds else None,
                data_wait_share=progress.wait_seconds / seconds if seconds else None,
                peak_memory_bytes=peak_memory(self.fabric.device),
                train_seconds=seconds,
                total_seconds=self.before_seconds + time.monotonic() - self.began,
            ),
            config=as_json(self.config),
            results_file=self.written.results,
            pictures=self.written.pictures,
            outputs=self.written.outputs,
            git_commit=self.commit,
            libraries=library_versions(),
            device=device_name(self.fabric.device),
            world_size=self.fabric.world_size,
            precision=_precision(self.fabric),
            started=progress.started,
            ended=None if status == "running" else _now(),
            error=error,
            extra=facts.extra,
            weights_options=_options(facts.init),
            departures=self.departures,
        )

    def _relative(self, paths: list[Path]) -> tuple[str, ...]:
        return tuple(str(path.relative_to(self.out)) for path in paths)


def _options(init: InitialWeights | None) -> dict[str, Any]:
    """Return what a record keeps of a declaration beside the path."""
    return {} if init is None else {name: value for name, value in as_json(init).items() if name != "path"}


def _precision(fabric: Fabric) -> str:
    return str(fabric._precision.precision)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
