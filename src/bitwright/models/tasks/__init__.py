"""What a network is judged by: accuracy, agreement, word errors, boxes, and how sure the figures are."""
