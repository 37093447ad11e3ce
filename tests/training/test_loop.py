import math
import signal
import subprocess
import sys

import accelerate
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import nn

from wieldy.errors import InputError, UsageError
from wieldy.training import checkpoint
from wieldy.training.loop import BEST, LAST, TrainConfig, diverged, train
from wieldy.training.schedules import Schedule

CONFIG = TrainConfig(steps=12, schedule=Schedule(peak=0.05), save_every=4, cpu=True)


class Lines:
    """y = 2 x - 1 with noise, 5 batches of 8 in each epoch."""

    def epoch(self, number):
        random = torch.Generator().manual_seed(number)
        x = torch.rand(5, 8, 1, generator=random)
        return list(zip(x, 2 * x - 1 + 0.01 * torch.randn(x.shape, generator=random), strict=True))


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 1))


def square(model, batch):
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def test_it_learns_a_line():
    model = nn.Linear(1, 1)
    run = train(model, Lines(), square, TrainConfig(steps=300, schedule=Schedule(peak=0.1), cpu=True))
    assert model.weight.item() == pytest.approx(2, abs=0.05)
    assert model.bias.item() == pytest.approx(-1, abs=0.05)
    assert run.losses[-1] < 1e-3
    assert not model.training


def test_the_same_run_twice_is_the_same_and_another_seed_is_not():
    runs = [train(net(), Lines(), square, TrainConfig(steps=8, seed=seed, cpu=True)).losses for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_a_resumed_run_is_the_uninterrupted_run(tmp_path):
    whole = net()
    expected = train(whole, Lines(), square, CONFIG)
    stopped = net()

    def stop(step, loss):
        if step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stopped, Lines(), square, CONFIG, folder=tmp_path, progress=stop)
    resumed = net(seed=5)
    run = train(resumed, Lines(), square, CONFIG, folder=tmp_path, resume=True)
    assert run.losses == expected.losses
    for name, parameter in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], parameter), name


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from tests.training.test_loop import *\n"
        "train(net(), Lines(), square, CONFIG, folder=Path(sys.argv[1]), resume=True,"
        " progress=lambda step, loss: (print(step, flush=True), time.sleep(0.2)))"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            if int(line) == 7:
                run.kill()
                break
        assert run.wait() == -signal.SIGKILL
    assert (tmp_path / LAST).is_file()
    resumed = train(net(seed=9), Lines(), square, CONFIG, folder=tmp_path, resume=True)
    assert resumed.losses == train(net(), Lines(), square, CONFIG).losses


def test_a_checkpoint_of_another_run_or_model_is_refused(tmp_path):
    train(net(), Lines(), square, CONFIG, folder=tmp_path)
    with pytest.raises(InputError, match="by a run with other settings: train into another folder"):
        train(net(), Lines(), square, TrainConfig(steps=3, cpu=True), folder=tmp_path, resume=True)
    with pytest.raises(InputError, match=r"holds another model: 1\.weight is missing"):
        train(nn.Sequential(nn.Identity(), nn.Linear(1, 1)), Lines(), square, CONFIG, folder=tmp_path, resume=True)
    checkpoint.save_weights(tmp_path / LAST, net())
    with pytest.raises(InputError, match="is not a checkpoint of a training run"):
        train(net(), Lines(), square, CONFIG, folder=tmp_path, resume=True)


def test_the_model_ends_with_its_best_weights(tmp_path):
    figures = iter([3.0, 1.0, 2.0])
    kept = []

    def validate(model):
        kept.append(model[0].weight.detach().clone())
        return {"error": next(figures)}

    model = net()
    config = TrainConfig(steps=12, validate_every=4, cpu=True)
    run = train(model, Lines(), square, config, folder=tmp_path, validate=validate)
    assert run.best_step == 8
    assert run.validations == {4: {"error": 3.0}, 8: {"error": 1.0}, 12: {"error": 2.0}}
    assert torch.equal(model[0].weight, kept[1])
    assert not torch.equal(kept[1], kept[2])
    assert (tmp_path / BEST).is_file()


def test_tied_weights_are_stored_and_come_back(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model

    model, path = tied(), tmp_path / "weights.safetensors"
    checkpoint.save_weights(path, model)
    other = tied()
    checkpoint.restore(other, load_file(path), path)
    assert torch.equal(other[1].weight, model[0].weight)
    assert other[1].weight is other[0].weight


def test_a_loss_that_explodes_ends_the_run_and_is_no_error():
    model = nn.Linear(1, 1)
    run = train(model, Lines(), lambda model, batch: square(model, batch) / 0.0, TrainConfig(steps=9, cpu=True))
    assert run.diverged_at == 1
    assert torch.isfinite(model.weight).all()
    assert not math.isfinite(run.losses[0])


def test_divergence_is_fifty_steps_above_three_times_the_median():
    calm = [1.0, 2.0, 3.0]
    assert not diverged([*calm, *[6.1] * 49])
    assert diverged([*calm, *[6.1] * 50])
    assert not diverged([*calm, *[6.0] * 50])
    assert diverged([1.0, math.nan])
    assert not diverged([5.0] * 50)


def test_frozen_parameters_stay():
    model = net()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    train(model, Lines(), square, TrainConfig(steps=3, cpu=True))
    assert torch.equal(model[0].weight, before)
    with pytest.raises(UsageError, match="every parameter of the model is frozen"):
        train(model.requires_grad_(False), Lines(), square, TrainConfig(steps=3, cpu=True))


class Pairs:
    """The batches of `Lines` two by two, as one."""

    def epoch(self, number):
        batches = Lines().epoch(number)
        return [tuple(map(torch.cat, zip(*batches[i : i + 2], strict=True))) for i in (0, 2)]


def line_by_two(folder):
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    run = train(model, Lines(), square, CONFIG, folder=folder)
    save_file(
        {"losses": torch.tensor(run.losses), **model.state_dict()},
        folder / f"{torch.distributed.get_rank()}.safetensors",
    )


def test_two_processes_with_a_batch_each_do_what_one_does_with_both(tmp_path):
    AcceleratorState._reset_state(True)  # the processes are forked from this one, which has trained alone
    accelerate.debug_launcher(line_by_two, (tmp_path,), num_processes=2)
    torch.manual_seed(0)
    alone = nn.Linear(1, 1)
    losses = train(alone, Pairs(), square, CONFIG).losses
    for rank in (0, 1):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert found["losses"].tolist() == pytest.approx(losses, rel=1e-5)
        assert torch.allclose(found["weight"], alone.weight)
        assert torch.allclose(found["bias"], alone.bias)
    assert (tmp_path / LAST).is_file()


def test_too_few_batches_for_the_processes_are_an_error():
    class Nothing:
        def epoch(self, number):
            return []

    with pytest.raises(InputError, match="epoch 0 has 0 batches for 1 processes: give more recordings"):
        train(nn.Linear(1, 1), Nothing(), square, CONFIG)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"save_every": 0}, "save_every is 0: it must be at least 1"),
        ({"clip": 0.0}, "clip is 0.0: it must be above 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**options)
