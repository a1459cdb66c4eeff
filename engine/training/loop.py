"""The training loop: `fit` trains any Task and returns the record of the run.

The order within step s is fixed: train, save where due, evaluate where due. A run that is stopped anywhere and resumed
repeats nothing that counts and skips nothing, so its weights, optimiser state and metrics equal an uninterrupted run's
bit for bit (on one CPU; on CUDA up to its own nondeterminism).
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.amp import GradScaler

from engine.config import RunConfig, as_json
from engine.cost import count_parameters
from engine.curves import CURVES_NAME, draw_curves
from engine.device import determined, has_static_graph, make_fabric, timed_convolutions
from engine.drawing import drawn
from engine.records.identity import check_folder, identity_of, run_id
from engine.records.metrics_file import CSV_NAME, Mark, MetricsFile
from engine.records.record import PICTURES, RunRecord, Status, write_record
from engine.records.recording import Named, Recorder, now, relative
from engine.records.results_file import write_results
from engine.task import ActsAfterSteps, ProbesFeatures, Task, Watches, steps_alike
from engine.training import resume as checkpointing
from engine.training.ahead import check_decoding, on_device
from engine.training.block_modes import carry_out_as
from engine.training.data import Batch, Shard, add_unreadable, check_readable, loading_for, train_batches
from engine.training.ema import EMA, averaged, with_ema
from engine.training.evaluation import Evaluated, evaluate
from engine.training.introduction import conclusion, doubts, introduction
from engine.training.log import Meter, RunLog
from engine.training.numbers import Fault, MicroBatch, Numbers
from engine.training.occupation import begin, occupied
from engine.training.optim import build_optimizer, set_lr
from engine.training.processes import from_all, on_any
from engine.training.resume import Progress, Trained
from engine.training.schedule import lr_factor
from engine.training.seeding import derive, seed_all
from engine.training.sharding import gathered, unshard_for_good
from engine.training.stop import StopRequest, non_finite, stop_requests
from engine.training.trackers import check_tracker, open_tracker

EXIT_CODES: dict[Status, int] = {"completed": 0, "failed": 1, "running": 1, "interrupted": 130}


def fit(
    task: Task,
    config: Any,
    *,
    recipe: str,
    out: Path,
    resume: bool = False,
    departures: tuple[str, ...] = (),
    arm: str | None = None,
) -> RunRecord:
    """Train `task` as `config.run` says, into `out`, and return its record (completed or interrupted).

    `departures` is what the record says of the recipe (engine.recipe), `arm` what it calls the initial weights.

    A run that fails leaves a record that says so, and its exception is raised. Raises ValueError before training where
    `out` holds another run, and where no image of a split can be read.
    """
    run: RunConfig = config.run
    facts = task.facts
    identity = identity_of(recipe, as_json(config), facts)
    check_folder(out, identity, resume=resume, config=config)
    static = has_static_graph(task, run)
    with determined(run.deterministic), timed_convolutions(steps_alike(task) and not run.deterministic):
        fabric = make_fabric(run.precision, device=run.device, strategy=run.strategy, static_graph=static)
        named = Named(recipe=recipe, run_id=run_id(identity), arm=arm, departures=departures)
        session = _Session(task, config, named, out, fabric, resume=resume)
        check_readable(task, seed=run.seed, most=run.max_unreadable, loading=session.loading)
        # after all that may refuse the run, so that a refusal leaves nothing; the folder may have changed since
        with occupied(out, fabric, lambda: check_folder(out, identity, resume=resume, config=config)) as problems:
            if fabric.is_global_zero:
                begin(out, task, identity)
            fabric.barrier()
            with stop_requests() as stop:
                return session.run(stop, problems)


class _Session:
    """One process's life of a run: from its start or its last checkpoint to its end."""

    def __init__(self, task: Task, config: Any, named: Named, out: Path, fabric: Fabric, *, resume: bool) -> None:
        self.task, self.named, self.out, self.fabric, self.resume = task, named, out, fabric, resume
        self.run_config: RunConfig = config.run
        run = self.run_config
        sizes = {"batch_size": run.batch_size, "dataset_size": len(task.train_data)}
        self.total = run.length.steps(**sizes)
        if self.total < 1:
            raise ValueError(f"the run's length, {run.length.value} {run.length.unit}, is less than one step.")
        self.warmup = run.schedule.warmup.steps(**sizes)
        probe = task.probe if isinstance(task, ProbesFeatures) else None
        seldom = self.total if probe is None else probe.every(self.total)
        self.eval_every = max(1, run.eval_every.steps(**sizes)) if run.eval_every else seldom
        self.save_every = max(1, run.save_every.steps(**sizes)) if run.save_every else self.total
        self.peak_lr = run.optim.lr(run.batch_size)
        task.param_groups(run.optim)  # refuses what it must before anything is written
        check_tracker(run.tracker)
        self.loading = loading_for(run.workers, fabric.device)
        self.saver = checkpointing.Saver(out, keep_last=run.keep_last, behind=fabric.device.type != "cpu")
        self.shard = Shard(fabric.global_rank, fabric.world_size, run.accumulate)
        self.shard.positions(0, run.batch_size)  # refuses a batch that cannot be shared
        check_decoding(task.train_data, fabric.device)
        carry_out_as(run, task.model, fabric.device)
        self.recorder = Recorder(
            task=task,
            config=config,
            named=named,
            fabric=fabric,
            total_steps=self.total,
            parameters=count_parameters(task.model),
        )

    def run(self, stop: StopRequest, problems: list[str]) -> RunRecord:
        """Train to the end, or to the request to stop; return the record. `problems` are said and recorded."""
        run, model = self.run_config, self.task.model
        module: Any = self.fabric.setup_module(model)  # sharding replaces the parameters of `model`
        self.groups = self.task.param_groups(run.optim)
        scaler: GradScaler | None = getattr(self.fabric._precision, "scaler", None)
        inner = build_optimizer(self.groups, run.optim, peak_lr=self.peak_lr, scaled_loss=scaler is not None)
        optimizer = self.fabric.setup_optimizers(inner)
        self.trained = Trained(
            model=model,
            optimizer=inner,
            ema=None if run.ema_decay is None else EMA(model, run.ema_decay),
            scaler=scaler,
        )
        restored, broken = checkpointing.load_latest(self.out, self.trained, self.fabric)
        self.progress = restored or Progress(started=now())
        changed = self.recorder.go_on(self.progress)
        metrics = self._metrics_file()
        self.log = RunLog(
            self.out,
            label=self.task.name,
            total_steps=self.total,
            first_step=self.progress.step,
            metrics=metrics,
            workers=self.loading.workers,
            tracker=open_tracker(run.tracker if metrics else "none", self.out, self.named.run_id, self.recorder.config),
        )
        self._introduce()
        unread = [metrics.problem] if metrics is not None and metrics.problem else []
        for problem in (*problems, *broken, *unread, *changed):
            self._warn(problem)
        if self.resume and restored is None:
            self.log.say(f"warning: {self.out} holds no checkpoint to resume; the run starts at its first step.")
        if restored is not None:
            self.log.say(f"  resuming after step {self.progress.step} of {self.total}")
        status: Status = "failed"
        error: str | None = None
        self._write_record("running")
        try:
            self.log.start()
            whole = self._train(module, optimizer, stop)
            self.saver.finish()
            if whole:
                self._finish()
                status = "completed"
            else:
                status, error = "interrupted", stop.signal_name or "stopped by another process"
        except BaseException as exception:
            error = f"{type(exception).__name__}: {exception}"
            raise
        finally:
            self.saver.close()
            self.log.close(status)
            record = self._write_record(status, error)
            for line in conclusion(record, self.out):
                self.log.say(line)
        return record

    def _metrics_file(self) -> MetricsFile | None:
        """Return it on the first process, which alone writes."""
        if not self.fabric.is_global_zero:
            return None
        progress = self.progress
        mark = Mark(progress.metrics_size, progress.metrics_sha256)
        return MetricsFile(self.out, step=progress.step, evaluated=self._evaluated(), mark=mark)

    def _introduce(self) -> None:
        ema, steps = self.trained.ema, self.total
        for line in introduction(
            self.task,
            self.run_config,
            self.named,
            self.fabric,
            groups=self.groups,
            ema=ema,
            steps=steps,
            peak_lr=self.peak_lr,
        ):
            self.log.say(line)
        for doubt in doubts(ema, steps=steps, warmup=self.warmup):
            self.log.say(f"warning: {doubt}")

    def _train(self, module: Any, optimizer: Any, stop: StopRequest) -> bool:
        """Train and evaluate to the last step; return False where stopped before, with everything saved."""
        run = self.run_config
        if not self._evaluate_if_due(stop):  # a run stopped between its checkpoint and its evaluation
            return False
        module.train()
        steps = range(self.progress.step, self.total)
        loaded = train_batches(
            self.task, seed=run.seed, steps=steps, batch_size=run.batch_size, shard=self.shard, loading=self.loading
        )
        with closing(on_device(loaded, self.fabric, self.log.say)) as batches:
            return self._take(steps, batches, module, optimizer, stop)

    def _take(self, steps: range, batches: Iterator[Batch], module: Any, optimizer: Any, stop: StopRequest) -> bool:
        run, progress = self.run_config, self.progress
        # float16 scaling overflows now and then by design: its scaler skips the step
        numbers = Numbers(self.fabric, checks_norm=run.precision != "16-mixed", refuse=self._refuse)
        meter = Meter()
        saved = progress.step
        for step in steps:
            if on_any(self.fabric, bool(stop)):
                if saved != progress.step:
                    numbers.read()
                    progress.losses = numbers.latest.losses if numbers.latest else {}
                    self._save()
                return False
            meter.begin()
            lr = self.peak_lr * lr_factor(run.schedule, step, total_steps=self.total, warmup_steps=self.warmup)
            set_lr(optimizer, lr)
            due = (step + 1) % run.log_every == 0 or step + 1 in (1, self.total)
            if isinstance(self.task, Watches):
                self.task.watch(due)
            with averaged(self.trained.ema, self.trained.scaler):
                waited = self._guarded_step(module, optimizer, batches, step, lr, numbers)
            progress.step = step + 1
            if isinstance(self.task, ActsAfterSteps):
                self.task.after_step(progress.step, self.total)
            saves = progress.step % self.save_every == 0 or progress.step == self.total
            if due or saves or self._evaluation_due() or numbers.latest is None:
                numbers.read()
            latest = numbers.latest  # elsewhere of the step before
            assert latest is not None
            progress.losses = latest.losses
            meter.end(waited)
            progress.train_seconds += meter.seconds
            progress.wait_seconds += waited
            rates = meter.rates(run.batch_size * self.task.facts.views_per_image)
            values = {**latest.losses, "lr": lr, "grad_norm": latest.norm, **rates}
            if due and self.trained.scaler is not None:
                values["loss_scale"] = self.trained.scaler.get_scale()  # falls at every step that overflows
            self.log.step(progress.step, values, write=due)
            if saves:
                self._save()
                saved = progress.step
            if self._evaluation_due():
                if not self._evaluate_if_due(stop):
                    if saved != progress.step:
                        self._save()
                    return False
                module.train()
        return True

    def _guarded_step(self, module: Any, optimizer: Any, batches: Any, step: int, lr: float, numbers: Numbers) -> float:
        """One optimiser step; return the seconds waited for data. Raises where numbers of the step before are none."""
        try:
            return self._step(module, optimizer, batches, step, lr, numbers)
        except (ArithmeticError, RuntimeError, ValueError):  # which the weights after a step that was none may cause
            numbers.read()
            raise

    def _step(self, module: Any, optimizer: Any, batches: Any, step: int, lr: float, numbers: Numbers) -> float:
        run, fabric = self.run_config, self.fabric
        micros: list[MicroBatch] = []
        waited = 0.0
        for micro in range(run.accumulate):
            start = time.monotonic()
            batch: Batch = next(batches)
            waited += time.monotonic() - start
            if on_any(fabric, bool(batch.unreadable)):  # counted alike everywhere: all stop at the limit together
                found = [(error.path, error.reason) for error in batch.unreadable]
                self._count_unreadable(dict(from_all(fabric, found)))
            seed_all(derive(run.seed, "step", step, micro, fabric.global_rank))
            with fabric.no_backward_sync(module, enabled=micro < run.accumulate - 1):
                losses: dict[str, Tensor] = module(batch.data)
                # what needs no gradient is a number to watch, not a loss
                loss = torch.stack([value.float() for value in losses.values() if value.requires_grad]).sum()
                fabric.backward(loss / run.accumulate)
            named = {name: value.detach() for name, value in {**losses, "loss": loss}.items()}
            micros.append(MicroBatch(ids=tuple(batch.ids), losses=named))
        if run.optim.clip_norm is not None:
            norm = fabric.clip_gradients(module, optimizer, max_norm=run.optim.clip_norm, error_if_nonfinite=False)
        else:
            fabric._precision.unscale_gradients(self.trained.optimizer)
            norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
        numbers.send(step, lr, micros, norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return waited

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
        self.saver.finish()  # no thread is at work while processes that load are forked
        with self._final_weights():
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
        if final and not done:
            self._save()  # before anything else may fail
        self._write_record("running")
        if final:
            self._keep_results(evaluated)
        return True

    @contextmanager
    def _final_weights(self) -> Iterator[None]:
        """Have the model hold, whole on every process, the weights that are evaluated."""
        with with_ema(self.trained.ema), gathered(self.task.model):
            yield

    def _keep_results(self, evaluated: Evaluated) -> None:
        written, folder = self.recorder.written, self.out / PICTURES
        if self.fabric.is_global_zero:
            written.results = write_results(self.out, evaluated.results)
        self._write_record("running")
        # shards of mixed precision are gathered in bfloat16, which autocast alone multiplies with float32
        sharded = self.run_config.strategy == "fsdp"
        with self._final_weights(), self.fabric.autocast() if sharded else nullcontext():
            if self.fabric.is_global_zero:
                pictures = drawn("pictures", lambda: self.task.draw(evaluated.results, folder), self._warn)
                curves = drawn(CURVES_NAME, lambda: draw_curves(self.out / CSV_NAME, folder / CURVES_NAME), self._warn)
                written.pictures = relative([*pictures, *curves], self.out)

    def _finish(self) -> None:
        with with_ema(self.trained.ema):
            unshard_for_good(self.task.model)
            if self.fabric.is_global_zero:
                self.recorder.finished(self.out, self.task.finish(self.out), self.log.mark())
            self.fabric.barrier()

    def _save(self) -> None:
        self.progress.total_seconds = self.recorder.seconds
        mark = self.log.mark()
        self.progress.metrics_size, self.progress.metrics_sha256 = mark.size, mark.sha256
        state = self.trained.state(keep=self.fabric.is_global_zero)
        if self.fabric.is_global_zero:
            self.saver.save(state, self.progress)
        self.fabric.barrier()

    def _count_unreadable(self, found: dict[str, str]) -> None:
        """Say and count unreadable images; raise ValueError above the limit."""
        add_unreadable(self.progress.unreadable, found, limit=self.run_config.max_unreadable, say=self.log.say)

    def _refuse(self, fault: Fault) -> NoReturn:
        self.saver.finish()
        where = f"on process {self.fabric.global_rank}; lr {fault.lr:.3g}"
        saved = checkpointing.checkpoints(self.out)
        raise non_finite(fault.what, fault.step, fault.losses, where=where, images=fault.images, saved=saved)

    def _warn(self, problem: str) -> None:
        """Say what went wrong, and keep it for the record."""
        self.recorder.written.warnings.append(problem)
        self.log.say(f"warning: {problem}")

    def _write_record(self, status: Status, error: str | None = None) -> RunRecord:
        record = self.recorder.record(self.progress, status, error)
        if self.fabric.is_global_zero:
            try:
                write_record(self.out, record, over=status != "running")
            except OSError as problem:
                if status != "failed":
                    raise
                self.log.say(f"warning: the record of the failure was not written: {problem}")
        return record
