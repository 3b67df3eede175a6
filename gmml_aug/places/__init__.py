"""Where: boxes at any pixel, cells and blocks of a grid."""
