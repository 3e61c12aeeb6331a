"""User ids that no account has, for the processes that a platform of root starts as another user."""

# systemd's table of user ids (UIDS-GIDS) leaves 60706 to 61183 unused; distributions end those of people at 60000.
OPERATOR_UID = 60810
POSTGRES_UID = 60811
NOBODY_UID = 65534
