"""From files to what the towers take: one loader per modality, with the published preprocessing."""
