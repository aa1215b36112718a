import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cutsew.checkpoints import is_path, left_empty, load, read_state_dict, weights_digest
from cutsew.errors import UserError

SETTING = "teacher.open_clip.pretrained"


@pytest.mark.parametrize(
    ("text", "expected"), [("openai", False), ("laion2b_s34b_b79k", False), ("a.pt", True), ("weights/best", True)]
)
def test_is_path(text, expected):
    assert is_path(text) is expected


def test_safetensors_and_pickles_give_the_same(tmp_path):
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.float16)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "b.pt"
    )
    for name in ("a.safetensors", "a.pt", "b.pt"):
        found = read_state_dict(tmp_path / name, SETTING)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)


class Harm:
    def __reduce__(self):
        return print, ("ran",)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"a": torch.ones(1), "b": Harm()}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match=r"^teacher\.open_clip\.pretrained: .*bad\.pt: .*\.safetensors") as error:
        read_state_dict(tmp_path / "bad.pt", SETTING)
    assert "\n" not in str(error.value)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(tmp_path):
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "jit.pt")
    with pytest.raises(UserError, match="holds more than tensors"):
        read_state_dict(tmp_path / "jit.pt", SETTING)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("none.pt", None, "no such file"),
        ("text.txt", b"x", "not a checkpoint"),
        ("bad.safetensors", b"x", "not a whole safetensors file"),
        ("empty.pt", b"", "damaged"),
        ("list.pt", pickle.dumps([1]), "damaged|holds no state dict"),
    ],
)
def test_bad_files(tmp_path, name, content, expected):
    if content is not None:
        tmp_path.joinpath(name).write_bytes(content)
    with pytest.raises(UserError, match=expected) as error:
        read_state_dict(tmp_path / name, SETTING)
    assert "\n" not in str(error.value)


def test_load_refuses_what_does_not_fit():
    model = nn.Linear(2, 3)
    load(model, {"weight": torch.ones(3, 2).half(), "bias": torch.zeros(3)}, "x.pt", SETTING)
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.weight.detach(), torch.ones(3, 2))
    with pytest.raises(UserError, match=r"1 tensors differ \(bias is missing, should be \(3,\)\)"):
        load(model, {"weight": torch.ones(3, 2)}, "x.pt", SETTING)
    with pytest.raises(UserError, match=r"weight is \(2, 2\), should be \(3, 2\)"):
        load(model, {"weight": torch.ones(2, 2), "bias": torch.zeros(3)}, "x.pt", SETTING)


def test_weights_digest_tells_models_apart():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    first = weights_digest(model)
    assert weights_digest(model.to(memory_format=torch.channels_last)) == first
    model[1].num_batches_tracked += 1
    assert weights_digest(model) != first


def test_models_are_left_empty_meanwhile_and_drawn_again_after():
    before = dict(vars(nn.init))
    with left_empty():
        torch.manual_seed(0)
        state = torch.get_rng_state()
        model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Embedding(2, 3), nn.Linear(4, 2))
        assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn
    assert dict(vars(nn.init)) == before
    filled = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    load(model, filled, "ones", SETTING)
    assert all(torch.equal(value, filled[name]) for name, value in model.state_dict().items())
    with pytest.raises(ZeroDivisionError), left_empty():
        raise ZeroDivisionError
    assert dict(vars(nn.init)) == before
