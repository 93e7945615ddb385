"""Errors that are meant for a person.

Everything a user can cause (a missing folder, a mistyped flag, a file that cannot be decoded) is raised as `UserError`
with three things in its text: what was wrong, with which file or flag, and what to do. The command line prints the text
alone; any other exception is a defect and keeps its traceback.
"""

import errno

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_RIGHT = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}


class UserError(Exception):
    """Something the user can mend; the message says what, where and how."""


class DecodeError(UserError):
    """A media file could not be read; the message holds the file and the decoder's own words."""
