"""llm: its command line over an OpenAI-compatible model, as its documentation sets one up."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL = os.environ["MODEL"]


def llm(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "llm", *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


with tempfile.TemporaryDirectory() as folder:
    env = {**os.environ, "LLM_USER_PATH": folder}
    Path(folder, "extra-openai-models.yaml").write_text(
        f"- model_id: gateway\n  model_name: {MODEL}\n  api_base: {os.environ['OPENAI_BASE_URL']}\n"
        "  api_key_name: gateway\n  supports_schema: true\n  supports_tools: true\n"
    )
    Path(folder, "keys.json").write_text(json.dumps({"gateway": os.environ["OPENAI_API_KEY"]}))
    assert "sandbox" in llm("-m", "gateway", "--no-stream", "Write about rivers")
    print("text")
    assert "sandbox" in llm("-m", "gateway", "Write a long essay about rivers")
    assert "sandbox" in llm("-c", "-m", "gateway", "and lakes")
    print("stream")
    assert isinstance(json.loads(llm("-m", "gateway", "--schema", "n int", "A number"))["n"], int)
    print("schema")
