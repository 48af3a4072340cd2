"""Captions: COCO's files, the tokeniser of the caption scorers, and the scores."""
