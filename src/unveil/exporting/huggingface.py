"""Networks as a folder that Hugging Face's transformers loads: config.json, weights, preprocessing and a model card."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from unveil.errors import UserError
from unveil.exporting.card import card
from unveil.exporting.network import Deviation, Network, Part, compare
from unveil.recipe import Data
from unveil.run import Run
from unveil.storage import replacing, write_json
from unveil.weights import Reverted, revert

CONFIG, WEIGHTS, PREPROCESSOR, CARD = "config.json", "model.safetensors", "preprocessor_config.json", "README.md"
#: In the order in which they are written: without a config.json no version of transformers takes the folder for a network.
FILES = (WEIGHTS, PREPROCESSOR, CARD, CONFIG)

#: Signal → their class that prepares it (one that resizes the short side and then crops).
PROCESSORS = {"image": "BitImageProcessor", "video": "VideoMAEImageProcessor"}
#: Theirs are Pillow's numbers.
RESAMPLING: dict[Any, int] = {v2.InterpolationMode.BILINEAR: 2, v2.InterpolationMode.BICUBIC: 3}


def write_folder(
    run: Run, network: Network, part: Part, out: Path, x: Mapping[str, Tensor], what: str
) -> tuple[list[Path], str]:
    """Write the folder; returns its files, and how it was compared, as a sentence.

    Args:
        run: whose network it is.
        network: what `network_of` made of it.
        part: "whole" or "encoder".
        out: a folder; other files in it stay.
        x: signals {key: [n, C, *S]} to compare on, and `what` they are.

    Raises:
        UserError: transformers has no class for it, or answers differently; then nothing is written.
    """
    from safetensors.torch import save_file

    theirs = revert(run.objective, encoder_only=part == "encoder")
    words = tokenizer_files(run, theirs)
    config = {**theirs.config, "architectures": [theirs.architecture], "torch_dtype": "float32"}
    if classes := network.description["classes"]:
        config |= {"id2label": {str(i): name for i, name in enumerate(classes)}, "label2id": labels(classes)}
        several = network.description["multi_label"]
        config["problem_type"] = "multi_label_classification" if several else "single_label_classification"
    processor = preprocessing(run.recipe.data, network)
    deviation = compared(run, network, theirs, config, x[network.input])
    if deviation is None:
        told = "not compared with the run: transformers is not installed (pip install transformers)"
    else:
        told = f"loaded by transformers and compared on {what}: the largest difference is {deviation}"
    (out / CONFIG).unlink(missing_ok=True)
    with replacing(out / WEIGHTS) as temporary:
        save_file({name: value.cpu().clone() for name, value in theirs.state.items()}, temporary, {"format": "pt"})
    write_json(out / PREPROCESSOR, processor)
    for name, content in words.items():
        write_json(out / name, content)
    with replacing(out / CARD) as temporary:
        text = card(run, network, theirs.architecture, told)
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    write_json(out / CONFIG, config)
    return [out / name for name in (*words, *FILES)], told


def tokenizer_files(run: Run, theirs: Reverted) -> dict[str, dict[str, Any]]:
    """Of a network that knows texts: tokenizer.json and tokenizer_config.json, by name. The ids of what stands around a text are put
    into the network's configuration, which is told where it ends by them."""
    from tokenizers import Tokenizer, processors

    words = run.recipe.data.text
    if words is None or words.text is None or "text_config" not in theirs.config:
        return {}
    text = words.text
    names = {number: str(text.tokenizer.id_to_token(number)) for number in (0, text.start, text.end)}
    ids = {"bos_token_id": text.start, "eos_token_id": text.end, "pad_token_id": 0}
    theirs.config["text_config"] |= ids
    copy = Tokenizer.from_str(text.tokenizer.to_str())
    copy.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=[names[text.start], "$A", names[text.end]],
        special_tokens=[(names[text.start], text.start), (names[text.end], text.end)],
    )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": names[text.start],
        "eos_token": names[text.end],
        "pad_token": names[0],
        "model_max_length": words.context,
    }
    return {"tokenizer.json": json.loads(copy.to_str()), "tokenizer_config.json": settings}


def labels(classes: list[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate(classes)}


def preprocessing(data: Data, network: Network) -> dict[str, Any]:
    """preprocessor_config.json.

    Raises:
        UserError: what is done to a file in evaluation is not: the short side resized, the centre cut out.
    """
    steps = list(data.evaluation)
    if len(steps) != 2 or not isinstance(steps[0], v2.Resize) or not isinstance(steps[1], v2.CenterCrop):
        raise UserError(
            f"transformers has no preprocessing for {', '.join(map(repr, steps)) or 'none'}: only for the short side resized and "
            "the centre cut out. Use --format torch, onnx or safetensors instead."
        )
    if network.input not in PROCESSORS:
        raise UserError(f"transformers has no preprocessing for signals of the kind {network.input!r}.")
    resize: Any = steps[0]
    height, width = network.shape[-2:]
    return {
        "image_processor_type": PROCESSORS[network.input],
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": resize.size[0]},
        "resample": RESAMPLING[resize.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(data.mean),
        "image_std": list(data.std),
    }


def compared(run: Run, network: Network, theirs: Reverted, config: dict[str, Any], x: Tensor) -> Deviation | None:
    """Their class, made of `config` and `state` as its loader would, against the run; None where transformers is missing.

    Raises:
        UserError: tensors are missing or left over there, or the answers differ.
    """
    import tempfile

    from safetensors.torch import save_file

    try:
        import transformers
    except ModuleNotFoundError:
        return None
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_file(
            {name: value.cpu().clone() for name, value in theirs.state.items()}, f"{folder}/{WEIGHTS}", {"format": "pt"}
        )
        Path(folder, CONFIG).write_text(json.dumps(config), encoding="utf-8")
        logging = transformers.logging
        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            more = {"add_pooling_layer": False} if theirs.architecture == "ViTModel" else {}
            kind = getattr(transformers, theirs.architecture)
            model, info = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **more)
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
    if wrong := [f"{key}: {', '.join(map(str, value))}" for key, value in info.items() if value]:
        raise UserError(
            f"{theirs.architecture} of transformers {transformers.__version__} does not fit: {'; '.join(wrong)}."
        )
    with torch.no_grad():
        ours, answers = _answers(run, theirs.architecture, model.eval(), x)
    return compare(ours, answers, f"transformers' {theirs.architecture}")


def _answers(run: Run, architecture: str, model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The same answer from the run and from their model: logits, predictions of the same masked patches, or tokens."""
    objective: Any = run.objective
    key = run.recipe.data.signal.key
    pixels = x.transpose(1, 2) if x.ndim == 5 else x  # theirs are [B, T, C, H, W]
    if architecture == "CLIPModel":
        ids = _texts(run, len(x))
        image, text = objective.embed("image", x), objective.embed("text", ids)
        return objective.logit_scale.exp() * image @ text.T, model(input_ids=ids, pixel_values=x).logits_per_image
    if architecture.endswith("Classification"):
        return objective.logits({key: x}), model(pixels).logits
    if not architecture.endswith(("PreTraining", "MaskedImageModeling")):
        return run.encoder(x).sequence(), model(pixels).last_hidden_state
    batch = {key: x, "seed": torch.arange(len(x))}
    mask = objective.masked(batch)
    places = x.new_zeros(len(x), torch.Size(objective.encoder.mask_grid(x)).numel())
    hidden = places.scatter(1, mask.masked, 1.0)
    ours = objective.predict(batch, mask)[0]
    if architecture == "VideoMAEForPreTraining":
        return ours, model(pixels, bool_masked_pos=hidden.bool()).logits
    if architecture == "BeitForMaskedImageModeling":
        found = model(pixels, bool_masked_pos=hidden.bool()).logits
        return ours, found.gather(1, mask.masked[..., None].expand(-1, -1, found.shape[-1]))
    found = model(pixels, noise=hidden).logits  # what has the least noise stays visible
    return ours, found.gather(1, mask.masked[..., None].expand(-1, -1, found.shape[-1]))


def _texts(run: Run, count: int) -> Tensor:
    """Token ids of some texts of different lengths: words, or, where the run has no tokenizer, any ids with the largest at the end."""
    words: Any = run.recipe.data.text
    if words.text is not None:
        return words.encode(["a photo of " + "one more and " * number + "a dog." for number in range(count)])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, words.vocabulary - 2, (count, words.context), generator=generator)
    ends = 1 + torch.arange(count)[:, None] % (words.context - 1)
    places = torch.arange(words.context)[None]
    return torch.where(places < ends, ids, torch.where(places == ends, words.vocabulary - 1, 0))
