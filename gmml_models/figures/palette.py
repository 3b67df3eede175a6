"""The colours of all figures, sheets and pages."""

from __future__ import annotations

# Okabe and Ito's, which colour-blind people tell apart too
ORANGE, BLUE, PURPLE, GREEN, SKY, VERMILION, YELLOW, BLACK = (
    "#E69F00",
    "#0072B2",
    "#CC79A7",
    "#009E73",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#000000",
)
STEPS = {"noise": ORANGE, "alien": BLUE, "grey": PURPLE, "blur": GREEN}  # of a corruption
OTHER_STEPS = (VERMILION, SKY, YELLOW, BLACK)
CLUSTERS = (YELLOW, BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK)  # yellow and blue are those of MC-SSL's figures 5 to 9
# from dark blue to yellow by even steps of lightness, which colour-blind people and grey prints keep
HEAT = ("#440154", "#482878", "#3E4989", "#31688E", "#26828E", "#1F9E89", "#35B779", "#6DCD59", "#B4DE2C", "#FDE725")
PAPER, INK, PALE, LINE = "#FBFBF9", "#222222", "#85837C", "#DFDDD6"
MARK, UNTOUCHED, GROUND = "#454541", "#E9E8E4", "#F1F0EC"  # what was touched; what was not; what nothing is drawn on
