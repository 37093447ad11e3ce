"""What splicing, word times and word confidence cost beside the work they are added to.

A recogniser of the usual small size with random weights: times do not depend on what it has learnt, and the gates look
at what does not either. Recordings are noise with made-up word times.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.arms import CHECKOUT, Observation, observe, take_turns
from benchmarks.result import BenchmarkResult, shut
from wieldy.claims.result import Condition
from wieldy.report import Metric

if TYPE_CHECKING:
    from lhotse.cut import Cut

SUMMARY = "splicing at least 20 times real time; branch, alignment and confidence small beside encoder and search"
PACKAGES = ("lhotse", "numpy", "torch")
DATA = "noise with made-up word times, 200 recordings of ten words"
SPLICING, BYTES, BRANCH, ALIGNMENT, CHEAP, NETWORK = 20.0, 40.0, 0.10, 0.01, 0.03, 0.10  # the specification's
RATE, SECONDS, WORDS, RECORDINGS = 16_000, 4.0, 10, 200
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
    """Shares of the encoder's and the search's time, medians of some runs on one thread."""
    del inputs
    import torch

    from wieldy.speech.decode.confidence import (
        DECODING,
        NETWORK,
        decoding_features,
        internal_log_probs,
        network_features,
    )
    from wieldy.speech.decode.frame_branch import FrameBranch, FrameBranchConfig, Tap
    from wieldy.speech.decode.transducer_beam import TransducerBeam, TransducerBeamConfig
    from wieldy.speech.decode.word_times import PhoneTimer, Said
    from wieldy.speech.lexicon import Lexicon
    from wieldy.speech.networks.transducer import Transducer, TransducerConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Transducer(TransducerConfig.preset("small", 500)).eval()
    # A blank that is likelier than in a random network: about as many tokens as in speech.
    with torch.no_grad():
        network.joint.output.bias[0] += 4.0
    frames = round(SECONDS / 0.03)
    x, lens = torch.randn(1, frames, network.config.input_dim), torch.tensor([frames])
    branch = FrameBranch(FrameBranchConfig(input_dim=network.encoder.output_dim, classes=40)).eval()
    phones = ("sil", *(f"p{k}" for k in range(39)))
    rng = np.random.default_rng(0)
    spelt = {f"word{k}": [tuple(rng.choice(phones[1:], 5))] for k in range(WORDS)}
    prior = np.full(40, -np.log(40), np.float32)
    timer = PhoneTimer(branch, phones, prior, prior + 5, Lexicon(spelt, guess=False), 0.03)
    beam = TransducerBeam(network, TransducerBeamConfig(beam=8, nbest=8))
    with torch.inference_mode():
        f, f_lens = network.encode(x, lens)
        with Tap(network, "encoder_projection") as tap:
            again, _ = network.encode(x, lens)
        tapped = tap.taken()
        same = bool(torch.equal(f, again))
        nbest = beam.decode(f, f_lens)[0]
        encoder = _median(lambda: network.encode(x, lens))
        branching = _median(lambda: branch(tapped, lens))
        scores = timer.scores(branch(tapped, lens)[0])
        aligning = _median(lambda: timer.aligned(list(spelt), scores))
        searching = _median(lambda: beam.decode(f, f_lens))
        # Three tokens a word.
        said = [_said(Said, one) for one in nbest]

        def cheap() -> Any:
            return decoding_features(nbest[0], said[0], internal_log_probs(network, nbest[0].tokens))

        def compared() -> Any:
            return network_features(said, [one.score for one in nbest])

        shapes = [cheap().shape[1] == len(DECODING), compared().shape[1] == len(NETWORK)]
        shares = {
            "branch": branching / encoder,
            "alignment": aligning / SECONDS,
            "cheap": _median(cheap) / searching,
            "network": (_median(cheap) + _median(compared)) / searching,
            "tokens": len(nbest[0].tokens),
            "same": same and all(shapes),
        }
    return Observation(encoder + searching, shares)


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
        Condition("tokens in the best hypothesis", float(heard["tokens"]), ">=", 5.0),
    )
    bar = Condition("seconds of sound spliced per second", None, ">=", SPLICING, "not measured yet")
    if any(gate.verdict != "holds" for gate in gates):
        return shut("rnnt_practical", SUMMARY, bar, gates, data=(DATA,))
    observed = take_turns("rnnt_practical", ["ours", "recognising"], inputs, runs)
    rate = Metric("ours", tuple(one.output["rate"] for one in observed["ours"]), "x real time")

    def share(name: str) -> float:
        return statistics.median(one.output[name] for one in observed["recognising"])

    return BenchmarkResult(
        name="rnnt_practical",
        summary=SUMMARY,
        bar=Condition(bar.statement, rate.median, ">=", SPLICING),
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


def _said(kind: Any, one: Any) -> Any:
    starts = tuple(range(0, len(one.tokens), 3))
    return kind(tuple(f"word{sum(one.tokens[s : s + 3])}" for s in starts), starts, one.tokens, one.frames)


def _median(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
