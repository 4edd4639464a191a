"""The AI tutor: any server that speaks OpenAI's chat completions, where a learner has named one."""
