from __future__ import annotations

from pathlib import Path

import pytest

from comfy_cpu_builder.spec import read_spec, spec_for_workflows
from comfy_cpu_core.errors import InputError

WHOLE = """
target = "engine"
base = "localhost:5000/base:1"
tags = ["registry.example:5000/me/image:1.0"]
platform = "linux/arm64"
python = "3.12"
plugins = ["comfy-cpu-plugin-x>=1"]
apt = ["libgomp1=12.2.0-14"]
pip = ["numpy<3"]
index_urls = ["https://wheels.example/simple"]
environment = { MODE = "fast" }

[[workflows]]
path = "a.json"
inputs = { "1.image" = "photo.jpg" }
set = { "2.strength" = 0.5 }

[[workflows]]
path = "b.json"
name = "second"

[[models]]
id = "mine"
source = "file:///models"
licence = "MIT"
files = [{ path = "x.onnx", target = "mine/x.onnx", size = 3 }]

[[node_packs]]
name = "pack"
source = "https://git.example/owner/pack"
classes = ["TheirNode"]
commit = "0123456789012345678901234567890123456789"

[bake]
instruction_sets = ["avx512f"]

[worker]
extras = ["comfyui"]

[limits]
max_image_mb = 700
max_cost_usd = 0.003

[price]
per_hour_usd = 0.2
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "comfy-cpu.toml"
    path.write_text(text)
    return path


def test_every_field_arrives(tmp_path: Path) -> None:
    spec = read_spec(write(tmp_path, WHOLE))
    assert [workflow.name for workflow in spec.workflows] == ["a", "second"]
    assert spec.workflows[0].path == tmp_path / "a.json"
    assert spec.workflows[0].inputs == {"1.image": tmp_path / "photo.jpg"}
    assert spec.workflows[0].values == {"2.strength": 0.5}
    assert spec.models[0].files[0].target == "mine/x.onnx"
    assert spec.node_packs[0].classes == {"TheirNode"}
    assert (spec.bake, spec.instruction_sets) == (True, {"avx512f"})
    assert spec.worker_extras == ("comfyui",)
    assert spec.limits == {"max_image_mb": 700, "max_cost_usd": 0.003}
    assert spec.price_per_hour_usd == 0.2
    assert spec.lock_path == tmp_path / "comfy-cpu.lock"


def test_workflows_alone_are_a_spec() -> None:
    spec = spec_for_workflows([Path("folder/cut out.json").with_name("cutout.json")], target="engine")
    assert (spec.target, spec.workflows[0].name, spec.path) == ("engine", "cutout", None)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "workflows: must be a list of at least one workflow"),
        ("workflows = []", "workflows: "),
        ("workflows = [1]", "workflows[0]: "),
        ('workflows = ["a.json"]\ntarget = "gpu"', "target: there is no target 'gpu'"),
        ('workflows = ["a.json"]\nbaes = "x"', "baes: there is no such field"),
        ('workflows = ["a.json"]\nbase = "x y"', "base: 'x y' will not do"),
        ('workflows = ["a.json"]\nbase = "x\\nRUN reboot"', "base: "),
        ('workflows = ["a.json"]\ntags = ["ok", "UPPER"]', "tags[1]: "),
        ('workflows = ["a.json"]\napt = ["x; reboot"]', "apt[0]: "),
        ('workflows = ["a.json"]\napt = "libgomp1"', "apt: must be a list of texts"),
        ('workflows = ["a.json"]\npip = ["x @ https://e.example/x.whl"]', "pip[0]: a URL cannot be locked"),
        ('workflows = ["a.json"]\npip = ["--index-url x"]', "pip[0]: "),
        ('workflows = ["a.json"]\nplatform = "windows/amd64"', "platform: "),
        ('workflows = ["a.json"]\npython = "2.7"', "python: "),
        ('workflows = ["a.json"]\nenvironment = { "A B" = "x" }', "environment.A B: "),
        ('workflows = ["a.json"]\nenvironment = { A = "x\\ny" }', "environment.A: must be a text in one line"),
        ('workflows = ["a.json"]\nenvironment = { HF_TOKEN = "x" }', "environment.HF_TOKEN: a secret"),
        ('workflows = ["a.json", "b/a.json"]', "workflows[1].name: two workflows are called 'a'"),
        ('workflows = ["a b.json"]', "workflows[0].name: "),
        ('[[workflows]]\npath = "a.json"\ninputs = { image = "x" }', "workflows[0].inputs.image: "),
        ('[[workflows]]\npath = "a.json"\nset = { "1." = 1 }', "workflows[0].set.1.: "),
        ('[[workflows]]\npath = "a.json"\nnane = "x"', "workflows[0].nane: there is no such field"),
        ('workflows = ["a.json"]\n[limits]\nmax_image_mb = -1', "limits.max_image_mb: "),
        ('workflows = ["a.json"]\n[limits]\nmax_image_mb = true', "limits.max_image_mb: "),
        ('workflows = ["a.json"]\n[limits]\nmax_cost_usd = 1', "limits.max_cost_usd: there is no price"),
        ('workflows = ["a.json"]\n[[models]]\nid = "x"\nsource = "hf:o/n"\ntarget = "../x"', "models[0].target: "),
        ('workflows = ["a.json"]\n[[models]]\nsource = "hf:o/n"\ntarget = "x"', "models[0].id: is missing"),
        (
            'workflows = ["a.json"]\n[[models]]\nid = "x"\nsource = "s"\nfiles = [{target = "x", sha256 = "0"}]',
            "models[0].files[0].sha256: ",
        ),
        ('workflows = ["a.json"]\n[[node_packs]]\nname = "x"\nsource = "git@host:x"', "node_packs[0].source: "),
        ('workflows = ["a.json"]\n[worker_comfyui]\nhandler = "mine"', "worker_comfyui.handler: "),
        ('workflows = ["a.json"]\n[comfyui]\nversion = "v1; x"', "comfyui.version: "),
        ('workflows = ["a.json"]\n[bake]\nenabled = 1', "bake.enabled: must be true or false"),
        ("workflows = [", "is no TOML"),
    ],
)
def test_an_error_names_the_fields_path(text: str, where: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_spec(write(tmp_path, text))
    assert where in str(caught.value)
    assert "comfy-cpu.toml" in str(caught.value)


def test_a_near_field_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_spec(write(tmp_path, 'workflows = ["a.json"]\nbaes = "x"'))
    assert caught.value.remedy == "did you mean 'base'?"


def test_a_spec_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.toml"):
        read_spec(tmp_path / "no.toml")
