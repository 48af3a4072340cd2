"""Weight mix: models of equal shape, averaged weight by weight without loading any of them.

SPHINX fuses language models tuned on two domains this way, theta = beta * theta_A + (1 - beta) * theta_B
(arXiv 2311.07575, section 3.1).
"""
