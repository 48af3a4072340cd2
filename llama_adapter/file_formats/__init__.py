"""Readers of the files that users bring: weights and settings. Whatever is wrong ends in one message.

Nothing of what a file says about itself is believed before it is compared with the file: sizes with its
length, names with its entries. What a library still raises behind that is turned into the message in one
place (``damage.reading``).
"""
