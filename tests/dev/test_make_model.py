from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from fruits.base.errors import WeightsError
from fruits.model import artifacts as artifact
from fruits.model import keras_reference
from fruits.model.networks import MOBILENET_V2

from dev import make_model


def test_both_artifacts_are_what_the_featurize_job_reads(model, models):
    for model_id, engine in ((model["model_id"], "litert"), (model["reference_model_id"], "tensorflow")):
        read = artifact.read(str(models / model_id), model_id, engine)
        assert hashlib.sha256(read.data).hexdigest() == model_id
        assert read.weights == model["weights"]


def test_weights_once_converted_are_not_converted_again(model, models, monkeypatch):
    monkeypatch.setattr(make_model, "convert", lambda weights: pytest.fail("converted again"))
    source = models / model["reference_model_id"] / "weights.h5"
    again = make_model.make(str(source), models)
    assert (again["model_id"], again["weights"]) == (model["model_id"], "path")


def test_two_conversions_of_the_same_weights_give_the_same_bytes(model, models):
    """The cached one was made in another process or by another call: names that count up must not show."""
    weights = keras_reference.read_weights((models / model["reference_model_id"] / "weights.h5").read_bytes())
    assert make_model.convert(weights) == (Path(model["folder"]) / "model.tflite").read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"<html>not found</html>"])
def test_a_weights_file_that_does_not_fit_is_one_clear_line_and_leaves_nothing(tmp_path, capsys, content):
    weights = tmp_path / "w.h5"
    if content is not None:
        weights.write_bytes(content)
    assert make_model.main(["--weights", str(weights), "--out", str(tmp_path / "models")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line for line in err.splitlines() if line.startswith("ERROR")] == err.splitlines()[-1:]
    assert f"WeightsError: {weights}: " in err or f"cannot read the weights file {weights}" in err
    assert not (tmp_path / "models").exists()


def test_weights_that_are_a_pipe_are_refused_and_not_read(tmp_path, capsys):
    os.mkfifo(tmp_path / "w.h5")
    assert make_model.main(["--weights", str(tmp_path / "w.h5"), "--out", str(tmp_path / "models")]) == 2
    assert f"cannot read the weights file {tmp_path}/w.h5: a pipe" in capsys.readouterr().err


def test_without_a_network_random_weights_are_used_and_nobody_can_overlook_it(tmp_path, capsys, monkeypatch):
    def no_network(network):
        raise WeightsError("Keras' ImageNet weights could not be downloaded (URLError): give --weights FILE.h5")

    monkeypatch.setattr(make_model, "_imagenet", no_network)
    monkeypatch.setattr(make_model, "random_weights", lambda: b"random")
    assert make_model._weights(None, MOBILENET_V2) == (b"random", "random")
    assert "RANDOM WEIGHTS" in capsys.readouterr().err
    with pytest.raises(WeightsError):
        make_model._weights("imagenet", MOBILENET_V2)


def test_random_weights_are_the_same_bytes_each_time():
    assert make_model.random_weights() == make_model.random_weights()
