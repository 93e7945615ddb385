"""A recipe of one's own: VideoMAE with other masks and a cheaper schedule.

unveil pretrain examples/own_recipe.py:mine --data clips/ --out runs/mine --ratio 0.8
"""

from unveil.recipe import Recipe
from unveil.recipes.videomae import finetune as finetune  # how `unveil finetune runs/mine` goes on
from unveil.recipes.videomae import videomae


def mine(ratio: float = 0.75, frames: int = 8, crop: int = 112) -> Recipe:
    """Random masks instead of tubes, on short clips.

    Args:
        ratio: share of the tubelets that is hidden.
        frames: of a clip.
        crop: side of the clip, in pixels.
    """
    recipe = videomae("S", ratio=ratio, frames=frames, crop=crop, masking="random")
    recipe.schedule.epochs, recipe.schedule.batch = 200, 64
    recipe.optimizer.lr = 6e-4
    return recipe
