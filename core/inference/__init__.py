"""Commands for trained runs (evaluation, prediction, export), and drawing of result pictures."""
