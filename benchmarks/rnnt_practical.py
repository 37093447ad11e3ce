"""What splicing, word times and word confidence cost beside the work they are added to.

Spliced are recordings of noise with made-up word times. The shares are those of digits-commands on a dozen digits; the
branch has random weights, which take as long as any.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.arms import CHECKOUT, Observation, observe, take_turns
from benchmarks.result import BenchmarkResult, shut
from wieldy.claims.result import Condition
from wieldy.metrics.text import word_errors
from wieldy.report import Metric

if TYPE_CHECKING:
    from lhotse.cut import Cut

SUMMARY = "splicing at least 20 times real time; branch, alignment and confidence small beside encoder and search"
PACKAGES = ("hibari-tts", "lhotse", "numpy", "pocketsphinx", "torch")
DATA = "200 recordings of noise with ten made-up words each; twelve digits by the synthetic voice heart"
BAR, BYTES, BRANCH, ALIGNMENT, CHEAP, NETWORK = 20.0, 40.0, 0.10, 0.01, 0.03, 0.10  # the specification's
RATE, SECONDS, WORDS, RECORDINGS = 16_000, 4.0, 10, 200
DIGITS = "seven three nine zero one eight four two six five three three"
MAX_WER = 0.1
REPEATS = 10


def splicing(inputs: Path) -> Observation:
    """Seconds of sound made of 200 recordings per second of work, on one thread."""
    del inputs
    from wieldy.speech.adapt.splice import SpliceConfig, build_store, splice
    from wieldy.speech.corpus import CutSet, aligned

    rng = np.random.default_rng(0)
    store = build_store(CutSet.from_cuts(_recording(i, rng) for i in range(RECORDINGS)))
    texts = [" ".join(f"word{k}" for k in rng.integers(0, 150, 8)) for _ in range(60)]
    splice(store, texts[:2], config=SpliceConfig(oov="skip"))
    started = time.perf_counter()
    cuts = splice(store, texts, config=SpliceConfig(oov="skip")).value
    seconds = time.perf_counter() - started
    right = all([word.symbol for word in aligned(cut)] == cut.supervisions[0].text.split() for cut in cuts)
    bytes_each = store.words.nbytes / store.words.occurrences(4)
    made = sum(cut.duration for cut in cuts)
    return Observation(seconds, {"rate": made / seconds, "right": right, "bytes": bytes_each})


def recognising(inputs: Path) -> Observation:
    """Shares of the encoder's and the search's time, medians on one thread, and whether words are right."""
    del inputs
    import soxr
    import torch

    from wieldy.speech.decode.confidence import decoding_features, internal_log_probs, network_features
    from wieldy.speech.decode.frame_branch import FrameBranch, FrameBranchConfig, Tap
    from wieldy.speech.decode.transducer_beam import TransducerBeamConfig
    from wieldy.speech.decode.word_times import PhoneTimer
    from wieldy.speech.features import log_mel
    from wieldy.speech.lexicon import Lexicon
    from wieldy.speech.recognize.transducer import TransducerRecognizer
    from wieldy.speech.synthesize import say
    from wieldy.weights import locate

    torch.set_num_threads(1)
    torch.manual_seed(0)
    beam = TransducerBeamConfig(beam=8, nbest=8)
    recognizer = TransducerRecognizer.load(locate("digits-commands", offline=True), beam=beam)
    network, speech = recognizer.network, say(DIGITS, "heart")
    samples = soxr.resample(speech.samples, speech.sample_rate, recognizer.features.sample_rate)
    x = torch.from_numpy(log_mel(samples, recognizer.features))[None]
    lens = torch.tensor([x.shape[1]])
    branch = FrameBranch(FrameBranchConfig(input_dim=network.encoder.output_dim, classes=40)).eval()
    lexicon = Lexicon.cmu(guess=False)
    phones = ("sil", *sorted({phone for word in DIGITS.split() for variant in lexicon(word) for phone in variant}))
    phones += tuple(f"further {number}" for number in range(40 - len(phones)))
    prior = np.full(40, -np.log(40), np.float32)
    timer = PhoneTimer(branch, phones, prior, prior, lexicon, recognizer.frame_s)
    with torch.inference_mode():
        f, f_lens = network.encode(x, lens)
        with Tap(network, "encoder_projection") as tap:
            again, _ = network.encode(x, lens)
        tapped = tap.taken()
        nbest = recognizer.beam.decode(f, f_lens)[0]
        said = [recognizer.said(one) for one in nbest]
        words, best = said[0].words, nbest[0]
        scores = timer.scores(branch(tapped, f_lens)[0])
        encoder = _median(lambda: network.encode(x, lens))
        search = _median(lambda: recognizer.beam.decode(f, f_lens))
        branching = _median(lambda: branch(tapped, f_lens))
        aligning = _median(lambda: timer.aligned(words, scores))
        cheap = _median(lambda: decoding_features(best, said[0], internal_log_probs(network, best.tokens)))
        compared = _median(lambda: network_features(said, [one.score for one in nbest]))
    return Observation(
        encoder + search,
        {
            "branch": branching / encoder,
            "alignment": aligning / (len(samples) / recognizer.features.sample_rate),
            "cheap": cheap / search,
            "network": (cheap + compared) / search,
            "same": bool(torch.equal(f, again)),
            "wer": word_errors(DIGITS.split(), words).rate,
        },
    )


ARMS = {"ours": splicing, "recognising": recognising}


def run(runs: int) -> BenchmarkResult:
    """Gate on what is made and heard, then time."""
    inputs = CHECKOUT / "examples"
    made, heard = (
        observe("rnnt_practical", "ours", inputs).output,
        observe("rnnt_practical", "recognising", inputs).output,
    )
    gates = (
        Condition("recordings put together have the words of their sentence", float(made["right"]), ">=", 1.0),
        Condition("encoder outputs are the same to the bit while they are tapped", float(heard["same"]), ">=", 1.0),
        Condition(f"WER on {len(DIGITS.split())} digits of a synthetic voice", heard["wer"], "<=", MAX_WER),
    )
    bar = Condition("seconds of sound spliced per second", None, ">=", BAR, "not measured yet")
    if any(gate.verdict != "holds" for gate in gates):
        return shut("rnnt_practical", SUMMARY, bar, gates, data=(DATA,))
    observed = take_turns("rnnt_practical", ["ours", "recognising"], inputs, runs)
    rate = Metric("ours", tuple(one.output["rate"] for one in observed["ours"]), "x real time")

    def share(name: str) -> float:
        return statistics.median(one.output[name] for one in observed["recognising"])

    return BenchmarkResult(
        name="rnnt_practical",
        summary=SUMMARY,
        bar=Condition(bar.statement, rate.median, ">=", BAR),
        gates=gates,
        further=(
            Condition("bytes of the index per run of 1 to 4 words", made["bytes"], "<=", BYTES),
            Condition("time of the branch over that of the encoder", share("branch"), "<=", BRANCH),
            Condition("time of the alignment over that of the sound", share("alignment"), "<=", ALIGNMENT),
            Condition("time of decoding features over that of the search", share("cheap"), "<=", CHEAP),
            Condition("time of all features over that of the search", share("network"), "<=", NETWORK),
        ),
        ours=rate,
        data=(DATA,),
    )


def _recording(index: int, rng: np.random.Generator) -> Cut:
    import io

    import lhotse
    import soundfile
    from lhotse.supervision import AlignmentItem

    from wieldy.speech.corpus import cut_of

    samples = 0.1 * rng.standard_normal(round(SECONDS * RATE))
    file = io.BytesIO()
    soundfile.write(file, samples.clip(-1, 1), RATE, format="FLAC")
    recording = lhotse.Recording(
        id=f"noise-{index}",
        sources=[lhotse.AudioSource(type="memory", channels=[0], source=file.getvalue())],
        sampling_rate=RATE,
        num_samples=len(samples),
        duration=SECONDS,
    )
    words = [f"word{k}" for k in rng.integers(0, 150, WORDS)]
    each = SECONDS / WORDS
    items = [AlignmentItem(word, round(k * each, 5), round(0.9 * each, 5)) for k, word in enumerate(words)]
    return cut_of(recording, " ".join(words), speaker=f"voice{index % 3}", alignment={"word": items})


def _median(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
