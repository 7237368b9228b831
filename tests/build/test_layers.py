# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers of a plan: their ids cover all that their content depends on; a plan goes on from those that are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from debian_cloud import plan
from debian_cloud.build import layers
from debian_cloud.build import steps as build_steps
from debian_cloud.build.stages import Round, Stage
from debian_cloud.image.custom import Custom
from debian_cloud.image.resolution import Needs, Package, Resolution
from tests.samples import ARCHIVE, CONFIG, CONTAINER, DEBIAN, EC2, RESOLUTION, SERIAL, configured, planned

STAGES = (Stage("essential", (Round(("base-files",)),)), Stage("base", (Round(("login",)),)))
SETTINGS = ("installer", "answers")


def ids(
    resolution: Resolution = RESOLUTION, stages: tuple[Stage, ...] = STAGES, settings: tuple[str, ...] = SETTINGS
) -> list[str]:
    debs = {package.name: package.deb for package in resolution.packages}
    made = [(stage, build_steps._operations(stage, debs)) for stage in stages]
    return [layer for _, _, layer in layers.identified(made, resolution, settings)]


def changed(name: str, **changes: object) -> Resolution:
    """The resolution, with another package of this name."""
    packages = [replace(one, **changes) if one.name == name else one for one in RESOLUTION.packages]
    return replace(RESOLUTION, packages=(*packages,))


def test_a_layer_is_named_after_its_packages_and_those_before() -> None:
    first, second = ids()
    assert len({first, second}) == 2
    assert ids(changed("login", sha256="0" * 64))[0] == first
    assert ids(changed("login", sha256="0" * 64))[1] != second
    assert not {*ids(changed("base-files", sha256="0" * 64))} & {first, second}


def test_a_layer_is_named_after_its_stage_and_the_order_of_its_packages() -> None:
    orders = [
        (Round(("login",)), Round(("base-files",))),
        (Round(("base-files",)), Round(("login",))),
        (Round(("base-files", "login")),),
        (Round(("login", "base-files")),),
        (Round(("base-files", "login"), ("login",)),),
        (Round(("base-files", "login"), ("base-files",)),),
        (Round(("base-files",)),),
    ]
    others = [Stage("base", rounds) for rounds in orders] + [Stage("essential", orders[2])]
    assert len({layer for one in others for layer in ids(stages=(one,))}) == len(others)


@pytest.mark.parametrize(
    "settings", [("other", "answers"), ("installer", "other"), ("installeranswers",), ("answers", "installer")]
)
def test_a_layer_is_named_after_the_installer_and_the_answers(settings: tuple[str, ...]) -> None:
    assert not {*ids()} & {*ids(settings=settings)}


@pytest.mark.parametrize(
    "other",
    [
        replace(RESOLUTION, epoch=RESOLUTION.epoch + 86400),
        changed("login", uri="http://mirror.example/login_4.16.0-2_amd64.deb"),
        replace(RESOLUTION, config=configured({**EC2, "Image-Size": "12G"})),
        replace(RESOLUTION, tools=()),
        replace(RESOLUTION, custom=Custom(hostname="x")),
    ],
    ids=["epoch", "uri", "size", "tools", "hostname"],
)
def test_what_a_layer_does_not_depend_on_does_not_change_its_id(other: Resolution) -> None:
    assert ids(other) == ids()
    first, second = (build_steps.plan(one, SERIAL, ("raw",), DEBIAN, ARCHIVE) for one in (other, RESOLUTION))
    assert layers.of(first) == layers.of(second) != ()


def test_a_layer_does_not_depend_on_the_serial_or_the_format() -> None:
    found = layers.of(planned(CONFIG))
    assert layers.of(build_steps.plan(RESOLUTION, "20261122.3", ("qcow2",), DEBIAN, ARCHIVE)) == found
    assert len({*found}) == 2


def test_images_share_the_layers_of_their_first_stages() -> None:
    more = Package("vim", "1", "amd64", 1, "1" * 64, uri="http://debian.example/vim_1_amd64.deb")
    custom = replace(
        RESOLUTION,
        packages=(*RESOLUTION.packages, more),
        needs={**RESOLUTION.needs, "vim": Needs()},
        custom=Custom(add=("vim",)),
    )
    with_vim = layers.of(build_steps.plan(custom, SERIAL, ("raw",), DEBIAN, ARCHIVE))
    assert with_vim[:-1] == layers.of(planned(CONFIG))[: len(with_vim) - 1]
    assert with_vim[-1] not in layers.of(planned(CONFIG))


def test_an_image_with_a_seed_has_no_layers() -> None:
    seeded = replace(RESOLUTION, custom=Custom(seed="root-password secret"))
    assert ids(seeded) == ["", ""]
    steps = build_steps.plan(seeded, SERIAL, ("raw",), DEBIAN, ARCHIVE)
    assert layers.of(steps) == ()
    assert layers.parts(steps, "/cache", ()) == (layers.Part(steps),)


PLAN = planned(CONFIG)
IDS = layers.of(PLAN)


def files(kept: tuple[str, ...]) -> tuple[str, ...]:
    """The names of layers' files."""
    return tuple(f"{layer}-{'0' * 64}" for layer in kept)


def made(parts: tuple[layers.Part, ...]) -> plan.Plan:
    """All steps of the parts, without those that keep or take layers."""
    steps = [step for part in parts for step in part.steps]
    return tuple(step for step in steps if isinstance(step, plan.Write) or step.argv[:2] != ("debian-cloud", "layer"))


def of_layers(parts: tuple[layers.Part, ...]) -> list[tuple[str, ...]]:
    """The arguments of the steps that keep or take layers."""
    steps = [step for part in parts for step in part.steps if isinstance(step, plan.Run)]
    assert all(step.root for step in steps if step.argv[1:2] == ("layer",))
    return [step.argv[2:6] for step in steps if step.argv[:2] == ("debian-cloud", "layer")]


def fetched(steps: plan.Plan) -> tuple[str, ...]:
    """The lists of packages that are fetched."""
    (argv,) = (step.argv for step in steps if isinstance(step, plan.Run) and step.argv[1:2] == ("packages",))
    return argv[3:]


def without_fetch(steps: plan.Plan) -> plan.Plan:
    return tuple(step for step in steps if isinstance(step, plan.Write) or step.argv[1:2] != ("packages",))


def test_the_parts_of_a_plan_of_which_nothing_is_kept_are_the_plan() -> None:
    parts = layers.parts(PLAN, "/cache", ())
    assert made(parts) == PLAN
    assert [part.layer for part in parts] == [*IDS, ""]
    assert of_layers(parts) == [("keep", "/cache", plan.TREE, layer) for layer in IDS]
    for part in parts[:-1]:
        # The step before is that which makes the layer.
        install = part.steps[-2]
        assert isinstance(install, plan.Run)
        assert install.layer == part.layer


@pytest.mark.parametrize("number", range(1, len(IDS) + 1))
def test_stages_that_are_kept_are_left_out(number: int) -> None:
    kept = IDS[:number]
    parts = layers.parts(PLAN, "/cache", files(kept))
    assert without_fetch(made(parts)) == without_fetch(tuple(step for step in PLAN if step.layer not in kept))
    lists = {step.path for step in PLAN if isinstance(step, plan.Write) and step.layer in kept}
    assert len(lists) == 2 * number
    assert fetched(made(parts)) == tuple(name for name in fetched(PLAN) if name not in lists)
    assert [part.layer for part in parts] == [*IDS[number:], ""]
    assert of_layers(parts) == [
        ("take", "/cache", plan.TREE, files(kept)[0]),
        *(("keep", "/cache", plan.TREE, layer) for layer in IDS[number:]),
    ]
    (take,) = (step for part in parts for step in part.steps if isinstance(step, plan.Run) and "take" in step.argv)
    assert take.argv[-number:] == files(kept)


def test_what_is_taken_comes_before_what_is_done_to_it() -> None:
    (part,) = layers.parts(PLAN, "/cache", files(IDS))
    words = [step.argv[:3] if isinstance(step, plan.Run) else (step.path,) for step in part.steps]
    taken = words.index(("debian-cloud", "layer", "take"))
    assert taken > words.index(("debian-cloud", "packages", "debs"))
    assert words.index(("./install", plan.TREE, "stages/finish")) > taken
    assert words.count(("debian-cloud", "layer", "take")) == 1


@pytest.mark.parametrize("number", range(len(IDS)))
def test_all_packages_are_there_before_the_first_stage(number: int) -> None:
    """A mirror may change at any time, but nothing is fetched between two stages."""
    steps = made(layers.parts(PLAN, "/cache", files(IDS[:number])))
    commands = [step.argv[:2] if isinstance(step, plan.Run) else () for step in steps]
    assert commands.count(("debian-cloud", "packages")) == 1
    before = commands[: commands.index(("debian-cloud", "packages"))]
    assert {*before} == {()}


def test_an_image_whose_stages_are_all_kept_may_need_no_packages() -> None:
    resolution = replace(RESOLUTION, config=configured(CONTAINER, "container"), tools=())
    steps = build_steps.plan(resolution, SERIAL, ("tar.xz",), DEBIAN, ARCHIVE)
    assert fetched(made(layers.parts(steps, "/cache", files(layers.of(steps))))) == ()
