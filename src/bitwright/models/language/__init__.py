"""Language models: any decoder of transformers, block by block, and the text it is calibrated and judged on."""
