"""User numbers that nobody else has, for what a platform of root starts as another user."""

# systemd's table of user numbers (UIDS-GIDS) gives 60706 to 61183 to nobody; distributions end people's at 60000.
OPERATOR_UID = 60810
POSTGRES_UID = 60811
NOBODY_UID = 65534
