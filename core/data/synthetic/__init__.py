"""Generate photos and masks for use without real data: one module for each kind of scene."""
