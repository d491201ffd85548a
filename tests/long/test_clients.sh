#!/usr/bin/env bash
# Clients that many programs are built on, beyond those of tests/e2e: Node's openai and the Vercel AI SDK
# (clients.mjs), LangChain and LiteLLM (clients.py). npm and pip fetch them once into the home folder.
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
"$bakestone" serve "$model" --port 0 --api-key-file "$work/keys" --max-context 2048 --embeddings "embedder=$model" >"$work/url" 2>"$work/serve.log" &
for _ in $(seq 300); do [ -s "$work/url" ] && break; sleep 0.1; done
url=$(cat "$work/url")
name=$(basename "$model" .gguf)
cp "$repository/tests/long/clients.mjs" "$node_folder/"  # where its imports are found
failed=0
node "$node_folder/clients.mjs" "$url" "$key" "$name" embedder || failed=1
"$venv/bin/python" "$repository/tests/long/clients.py" "$url" "$key" "$name" embedder || failed=1
exit $failed
