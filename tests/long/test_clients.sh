#!/usr/bin/env bash
# Clients that many programs are built on, beyond those of tests/e2e: Node's openai and the Vercel AI SDK
# (clients.mjs), LangChain and LiteLLM (clients.py), and two agents for the command line, each asked one
# question with its tools offered: Claude Code (Anthropic's messages) and Codex (OpenAI's responses). npm and
# pip fetch them once into the home folder.
source "$(dirname "$0")/../e2e/lib.sh"
if ! command -v npm >/dev/null || [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -lt 20 ]; then
  echo "skipped: node 20 or newer and npm are not installed" >&2
  exit 77
fi
node_clients=(openai@7.57.0 ai@7.0.173 @ai-sdk/openai@4.0.118 @ai-sdk/openai-compatible@3.0.92 zod@4.6.7)
python_clients=(langchain-openai==1.7.4 litellm==1.110.2)
node_folder=$BAKESTONE_HOME/node-clients
venv=$BAKESTONE_HOME/venv-clients
if [ "$(cat "$node_folder/installed" 2>/dev/null)" != "${node_clients[*]}" ]; then
  npm install --prefix "$node_folder" --ignore-scripts --no-audit --no-fund --loglevel=error "${node_clients[@]}"
  echo "${node_clients[*]}" >"$node_folder/installed"
fi
if [ "$(cat "$venv/installed" 2>/dev/null)" != "${python_clients[*]}" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check "${python_clients[@]}"
  echo "${python_clients[*]}" >"$venv/installed"
fi

key=clients-secret-0123456789
echo "$key name=clients" >"$work/keys"
"$bakestone" serve "$model" --port 0 --api-key-file "$work/keys" --max-context 8192 --embeddings "embedder=$model" >"$work/url" 2>"$work/serve.log" &
for _ in $(seq 300); do [ -s "$work/url" ] && break; sleep 0.1; done
url=$(cat "$work/url")
name=$(basename "$model" .gguf)
cp "$repository/tests/long/clients.mjs" "$node_folder/"  # where its imports are found
failed=0
node "$node_folder/clients.mjs" "$url" "$key" "$name" embedder || failed=1
"$venv/bin/python" "$repository/tests/long/clients.py" "$url" "$key" "$name" embedder || failed=1

# The agents are programs of 300 MB each: where npm cannot have one it is left out with a word.
agents=$BAKESTONE_HOME/node-agents
question="What is the capital of France? Answer in one word."
# have_agent PACKAGE VERSION
have_agent() {
  local folder="$agents/$1@$2"
  [ -e "$folder/installed" ] && return
  mkdir -p "$folder"
  if ! npm install --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error "$1@$2" >&2; then
    echo "skipped: npm cannot have $1@$2" >&2
    return 1
  fi
  touch "$folder/installed"
}
# answered NAME FILE PATTERN: what an agent wrote has a whole answer.
answered() {
  if grep -q "$3" "$2"; then
    echo "$1: answered"
  else
    cat "$2" >&2
    echo "FAILED: $1: expected $3" >&2
    failed=1
  fi
}
mkdir -p "$work/agent/.codex" "$work/agent/files"
echo "You are a helpful assistant." >"$work/agent/instructions.md"  # its own would not fit the context
if have_agent @anthropic-ai/claude-code 2.1.332; then
  (cd "$work/agent/files" && env -i PATH="$PATH" HOME="$work/agent" ANTHROPIC_BASE_URL="$url" ANTHROPIC_API_KEY="$key" \
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 timeout 300 node \
    "$agents/@anthropic-ai/claude-code@2.1.332/node_modules/@anthropic-ai/claude-code/cli-wrapper.cjs" \
    -p "$question" --model "$name" --system-prompt "You are a helpful assistant." --tools "Read" --output-format json) \
    </dev/null >"$work/claude.json" 2>&1 || true
  answered "Claude Code" "$work/claude.json" '"is_error":false.*"result":"[^"]\|"result":"[^"].*"is_error":false'
fi
if have_agent @openai/codex 0.171.0; then
  provider="{name=\"bakestone\",base_url=\"$url/v1\",env_key=\"KEY\",wire_api=\"responses\",request_max_retries=0,stream_max_retries=0}"
  (cd "$work/agent/files" && env -i PATH="$PATH" HOME="$work/agent" CODEX_HOME="$work/agent/.codex" KEY="$key" timeout 300 \
    "$agents/@openai/codex@0.171.0/node_modules/.bin/codex" exec --json --skip-git-repo-check --sandbox read-only \
    -m "$name" -c model_provider=bakestone -c "model_providers.bakestone=$provider" \
    -c "model_instructions_file=$work/agent/instructions.md" "$question") </dev/null >"$work/codex.json" 2>&1 || true
  answered "Codex" "$work/codex.json" '"type":"agent_message","text":"[^"]'
  answered "Codex" "$work/codex.json" '"type":"turn.completed"'
fi
exit $failed
