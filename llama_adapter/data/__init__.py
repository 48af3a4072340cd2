"""From files to labelled token sequences: record -> turns -> tokens with a label mask -> batch."""
