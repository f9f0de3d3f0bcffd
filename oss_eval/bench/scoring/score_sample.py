"""From a model output to a stored sample: two scorers, timings, failures as rows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from oss_eval.analysis.latency import record_durations
from oss_eval.bench.client import RequestFailed, SampleClient
from oss_eval.bench.scoring.boxes import last_box
from oss_eval.bench.scoring.leaks import final_text
from oss_eval.bench.scoring.scorer_process import ScorerProcess
from oss_eval.bench.types import Benchmark, ModelOutput, Sample, Score
from oss_eval.config.bench_task import BenchTask
from oss_eval.records import RequestRecord, SampleRecord

if TYPE_CHECKING:
    from oss_eval.bench.plan import SampleJob


def grade(
    task: BenchTask, benchmark: Benchmark, sample: Sample, output: ModelOutput, scorers: ScorerProcess
) -> Score:
    """The benchmark's score, with that of the second scorer. Never raises for an exception in a scorer."""
    if output.truncated:
        cut = _cut_short(task, sample, output)
        if cut is not None:
            return cut
    try:
        verdict = benchmark.grade(sample, output)
    except Exception as error:  # noqa: BLE001 (a grader that raises leaves the sample unscored)
        return Score(None, unscored=f"{type(error).__name__}: {error}"[:500])
    if verdict.score is None or output.truncated or not _mathematical(task, sample):
        return verdict
    second = scorers.second_score(output.response, sample.target)
    return replace(verdict, second=second)


def _cut_short(task: BenchTask, sample: Sample, output: ModelOutput) -> Score | None:
    """The score of a truncated answer without a complete box, where something else could be taken for the answer.

    Our own scorers handle this themselves. A benchmark without box and letter (an essay with instructions) scores
    the text as it is.
    """
    if task.scorer is not None or sample.form == "plain":
        return None
    box, cut = last_box(output.response)
    if box is not None and not cut:
        output.response = f"\\boxed{{{box}}}"
        return None
    return Score(0.0, None, "cut box" if cut else "truncated")


def _mathematical(task: BenchTask, sample: Sample) -> bool:
    """Whether math-verify can be the second scorer, because it is not the first."""
    if task.scorer is not None:
        return task.scorer == "integer"
    return sample.form == "box"


def sample_record(
    job: SampleJob,
    run_id: str,
    model: str,
    client: SampleClient,
    output: ModelOutput | None,
    failure: Exception | None,
    scorers: ScorerProcess,
) -> SampleRecord:
    """The row of a sample that was answered, or that failed for good."""
    sample = job.sample
    record = SampleRecord(
        run_id=run_id,
        point_id=job.point_id,
        request_id=client.request_id,
        task=job.task.name,
        subset=sample.subset,
        sample_id=sample.sample_id,
        epoch=job.epoch,
        reasoning_effort=job.effort,
        model=model,
        prompt=json.dumps(sample.messages if output is None else output.messages, ensure_ascii=False),
        target=sample.target,
        attempts=client.attempts,
        turns=len(client.answers),
        waited_ms=client.waited * 1000,
    )
    _timings(record, [answer.record for answer in client.answers])
    if output is None:
        _failed(record, failure)
        return record
    text, leaked = final_text(output.response)
    record.response, record.reasoning = output.response, output.reasoning or None
    record.leaked = leaked
    record.finish_reason, record.truncated = output.finish_reason, output.truncated
    output.response = text
    verdict = grade(job.task, job.benchmark, sample, output, scorers)
    record.answer, record.route = verdict.answer, verdict.route or None
    record.score, record.unscored_reason = verdict.score, verdict.unscored
    record.correct = verdict.score == 1.0 if verdict.binary and verdict.score in (0.0, 1.0) else None
    record.second_score = verdict.second
    record.metrics = json.dumps(verdict.metrics) if verdict.metrics else None
    return record


def _failed(record: SampleRecord, failure: Exception | None) -> None:
    record.status, record.error_kind = "error", "client"
    if isinstance(failure, RequestFailed):
        last = failure.record
        record.status, record.error_kind, record.http_status = last.status, last.error_kind, last.http_status
        record.error_message = last.error_message
        record.start_ns = record.start_ns or last.start_ns or last.end_ns
        record.end_ns = last.end_ns
    elif failure is not None:
        record.error_message = f"{type(failure).__name__}: {failure}"[:2048]


def _timings(record: SampleRecord, turns: list[RequestRecord]) -> None:
    """Tokens and latencies are the sums of all turns; TTFT and TTFA are those of the first turn, TPOT that of the
    last."""
    if not turns:
        return
    first, last = turns[0], turns[-1]
    record.start_ns, record.end_ns = first.start_ns, last.end_ns
    durations = [record_durations(turn) for turn in turns]
    record.ttft_ms, record.ttfa_ms = durations[0]["ttft"], durations[0]["ttfa"]
    record.tpot_ms = durations[-1]["tpot"]
    latencies = [values["latency"] for values in durations if values["latency"] is not None]
    record.latency_ms = sum(latencies) if latencies else None
    for name in ("prompt_tokens", "completion_tokens", "reasoning_tokens"):
        counts = [getattr(turn, name) for turn in turns]
        if all(count is not None for count in counts):
            setattr(record, name, sum(counts))
    sources = {turn.token_source for turn in turns}
    record.token_source = "chunks" if "chunks" in sources else next(iter(sources - {None}), None)
