"""The one table of the classes of workloads."""

from isobench.workloads import classes, loader


def test_the_workloads_that_stand_for_a_class_exist_and_are_of_it() -> None:
    names = {workload.name for workload in loader.find().values()}
    assert names >= classes.TYPICAL
    for each in classes.CLASSES:
        assert not each.typical or each.typical.startswith(f"{each.name}.")


def test_a_class_that_the_table_does_not_have_is_called_by_its_name_and_comes_last() -> None:
    own = classes.get("gpu")
    assert (own.title, own.within, own.lead, own.averaged) == ("gpu", "gpu", "", True)
    assert classes.opening("gpu") == "gpu"
    assert classes.rank("gpu") > max(classes.rank(each.name) for each in classes.CLASSES)


def test_a_sentence_begins_with_a_capital() -> None:
    assert classes.opening("cpu") == "CPU work"
    assert classes.opening("io") == "I/O"
    assert classes.opening("startup") == "Start-up"


def test_names_are_there_once() -> None:
    names = [each.name for each in classes.CLASSES]
    assert len(names) == len(set(names))
