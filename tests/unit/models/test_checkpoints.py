import pickle

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import checkpoint
from torch import nn

from cutsew.errors import UserError
from cutsew.models.checkpoints import is_path, load, read_state_dict, skip_weight_init, weights_digest
from cutsew.models.preprocessing import OPENAI_SIZES

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
        result = read_state_dict(tmp_path / name, SETTING)
        assert result.keys() == state.keys()
        assert all(torch.equal(result[key], state[key]) for key in state)


class Harm:
    def __reduce__(self):
        return print, ("ran",)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"a": torch.ones(1), "b": Harm()}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match=r"^teacher\.open_clip\.pretrained: .*bad\.pt: .*\.safetensors") as error:
        read_state_dict(tmp_path / "bad.pt", SETTING)
    assert "\n" not in str(error.value)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_torchscript_of_a_clip_gives_what_torch_reads(tmp_path):
    """As OpenAI's archives: parts mangled into classes of their own, half precision, sizes next to the weights."""
    _, model = checkpoint(tmp_path, "test-vit")
    for name, size in zip(OPENAI_SIZES, (32, 8, 49408), strict=True):
        vars(model).pop(name, None)
        model.register_buffer(name, torch.tensor(size))
    inputs = {"encode_image": torch.zeros(1, 3, 32, 32), "encode_text": torch.zeros(1, 8, dtype=torch.long)}
    traced = torch.jit.trace_module(model, inputs, check_trace=False)
    for module in (traced, traced.half()):
        torch.jit.save(module, tmp_path / "jit.pt")
        result, expected = read_state_dict(tmp_path / "jit.pt", SETTING), module.state_dict()
        assert result.keys() == expected.keys()
        assert all(torch.equal(result[name], expected[name]) for name in expected)


@pytest.mark.filterwarnings("ignore")
def test_scripted_modules_keep_what_is_registered(tmp_path):
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(2))
            self.register_buffer("mean", torch.rand(2))
            self.attribute = torch.rand(2)

        def forward(self, x):
            return x * self.weight + self.mean + self.attribute

    module = torch.jit.script(nn.Sequential(Part(), nn.BatchNorm1d(2), Part()))
    torch.jit.save(module, tmp_path / "jit.pt")
    result, expected = read_state_dict(tmp_path / "jit.pt", SETTING), module.state_dict()
    assert result.keys() == expected.keys()
    assert all(torch.equal(result[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("none.pt", None, "no such file"),
        ("text.txt", b"x", "not a checkpoint"),
        ("bad.safetensors", b"x", "not a complete safetensors file"),
        ("empty.pt", b"", "is empty"),
        ("list.pt", pickle.dumps([1]), "holds no state dict"),
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
    with pytest.raises(
        UserError, match=r"2 tensors differ \(bias is \(3,\) of int64, should be \(3,\)\); no name|2 tens"
    ):
        load(model, {"weight": torch.ones(3, 2).int(), "bias": torch.zeros(3).long()}, "x.pt", SETTING)
    with pytest.raises(UserError, match=r"no name of the file \(visual\.conv1, \.\.\.\) is one of the model"):
        load(model, {"visual.conv1": torch.ones(3, 2)}, "x.pt", SETTING)
    with pytest.raises(UserError, match="names are those of Hugging Face transformers"):
        load(model, {"vision_model.encoder.layers.0.layer_norm1.weight": torch.ones(3)}, "x.pt", SETTING)
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
    with skip_weight_init():
        torch.manual_seed(0)
        state = torch.get_rng_state()
        model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Embedding(2, 3), nn.Linear(4, 2))
        assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn
    assert dict(vars(nn.init)) == before
    filled = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    load(model, filled, "ones", SETTING)
    assert all(torch.equal(value, filled[name]) for name, value in model.state_dict().items())
    with pytest.raises(ZeroDivisionError), skip_weight_init():
        raise ZeroDivisionError
    assert dict(vars(nn.init)) == before
