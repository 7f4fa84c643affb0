"""Enumerations that plug-ins extend, and what workloads cannot do without."""

import copy
import pickle

import msgspec
import pytest

from isobench.model import Abi, Technology


def test_a_plain_name_is_a_technology_of_a_plug_in_and_always_the_same() -> None:
    unikernel = Technology("unikernel")
    assert unikernel is Technology("unikernel")
    assert unikernel is copy.deepcopy(unikernel) is pickle.loads(pickle.dumps(unikernel))  # noqa: S301
    assert msgspec.convert("unikernel", Technology) is unikernel
    assert msgspec.json.encode(unikernel) == b'"unikernel"'
    assert unikernel.heading == "Unikernel"


def test_a_plain_name_is_the_same_technology_for_whoever_has_decoded_others_before() -> None:
    assert msgspec.convert("sandbox", Technology) is Technology.SANDBOX
    first = Technology("unikraft")
    assert msgspec.convert("unikraft", Technology) is first is Technology("unikraft")


def test_what_plug_ins_add_is_not_among_the_documents_columns() -> None:
    assert Technology("library-os") not in set(Technology)
    assert Technology.SANDBOX in set(Technology)


@pytest.mark.parametrize("name", ["", "-", "Two Words", "<b>", "a\x1bb", "x" * 41, "a--b", "3d"])
def test_what_is_no_plain_name_is_no_technology(name: str) -> None:
    with pytest.raises(ValueError, match="is not a valid Technology"):
        Technology(name)


def test_an_abi_of_a_plug_in_has_a_machine_and_a_system() -> None:
    abi = Abi("s390x-linux")
    assert (abi.machine, abi.system) == ("s390x", "linux")
    assert dict(abi.lacks) == {}
