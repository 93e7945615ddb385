"""Of which kind a file is, by the end of its name."""

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".vob", ".gif",
})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
SOUND_SUFFIXES = frozenset({
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".m4b", ".aac", ".wma", ".aiff", ".aif", ".aifc", ".au", ".snd",
    ".caf", ".w64", ".amr", ".ac3", ".mp2", ".mka", ".weba", ".wv", ".ape", ".tta",
})
# fmt: on
