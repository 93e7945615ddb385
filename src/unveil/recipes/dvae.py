"""dVAE: zero-shot text-to-image generation.
Ramesh, Pavlov, Goh, Gray, Voss, Radford, Chen, Sutskever. ICML 2021. arXiv:2102.12092

The first stage of DALL-E: a discrete variational autoencoder that writes an image as a grid of codes out of a vocabulary of
8192, one for 8 × 8 pixels, and paints it from them. It is the tokenizer whose codes BEiT predicts.

Published: 53.8 M parameters of the encoder and 43.9 M of the decoder (size B, released); of reconstructions no number.
    unveil train dvae --data images/ --out runs/tokenizer
    unveil pretrain beit --data images/ --tokenizer runs/tokenizer --out runs/beit
The settings are those of the paper's appendix A: three million steps of 512 crops of 256², which are 1200 epochs of a million
images; the temperature falls over the first 150,000 steps and β grows over the first 5,000, here shares of the training. Of
250 million images, as there, they are six epochs. No training was released; the vectors of codes begin larger here, for a
vocabulary's worth of inputs of which one is one is no sum of as many (`DalleDecoder`).
"""

from unveil.data import HorizontalFlip, Image, RandomShortSideCrop, centred
from unveil.decoders import DalleDecoder
from unveil.encoders import DalleEncoder, DalleSize, VisualTokenizer
from unveil.losses import LOGIT_MEAN, LOGIT_STD, logit_laplace, logit_laplace_mode
from unveil.objectives import DiscreteVAE
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule

PRESETS = {
    "small": {
        "size": "Ti",
        "vocab": 1024,
        "crop": 112,
        "cooling": 1.0,
        "beta": 1.0,
        "beta_growth": 0.5,
        "schedule.epochs": 100,
        "schedule.warmup": 2,
        "schedule.batch": 32,
        "optimizer.lr": 2e-3,
        "loader.batch": 16,
        "ema": 0.99,
    },
}

#: As the tokenizer takes its images: in the range in which a logit is finite.
MEAN, STD = (LOGIT_MEAN,) * 3, (LOGIT_STD,) * 3


def dvae(
    size: DalleSize = "B",
    vocab: int = 8192,
    crop: int = 256,
    temperature: float = 1 / 16,
    cooling: float = 0.05,
    beta: float = 6.6,
    beta_growth: float = 1 / 600,
    flip: bool = True,
) -> Recipe:
    """dVAE: images as codes of a vocabulary, learned without labels.

    Args:
        size: of encoder and decoder; a name, or WIDTHxBLOCKS of the first group.
        vocab: how many codes there are.
        crop: side of the image, in pixels; 8 has to divide it.
        temperature: of the relaxation at the end; it falls from 1.
        cooling: share of the training over which it falls.
        beta: weight of the divergence from codes that are all alike likely.
        beta_growth: share of the training over which it grows from 0.
        flip: mirror images at random.
    """
    return Recipe(
        objective=DiscreteVAE(
            key="image",
            tokenizer=VisualTokenizer(DalleEncoder(size), vocab),
            decoder=DalleDecoder(size, vocab, channels=2 * 3),
            loss=logit_laplace,
            picture=logit_laplace_mode,
            temperature=temperature,
            cooling=cooling,
            beta=beta,
            beta_growth=beta_growth,
        ),
        data=Data(
            Image(),
            transform=[RandomShortSideCrop(crop, crop * 9 // 8, crop * 12 // 8), *[HorizontalFlip()] * flip],
            evaluation=centred(crop, crop * 9 // 8),
            mean=MEAN,
            std=STD,
        ),
        optimizer=Optimizer(lr=5e-5, weight_decay=1e-4),
        schedule=Schedule(epochs=1200, warmup=1, batch=512, min_lr=6.25e-7),
        loader=Loader(batch=8),
        ema=0.999,
    )
