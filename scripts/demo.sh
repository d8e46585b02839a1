#!/usr/bin/env bash
# Usage: scripts/demo.sh    trains an image and a text classifier on the data in the package, scores, exports, asks and serves both
# Minutes on a CPU; needs no download after the set-up. The runs stay in runs/ of the working directory.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\n== %s\n' "$*"; }

show_and_keep_last() { # copies its input to the user and leaves the last line on stdout
  local line last=
  while IFS= read -r line; do
    printf '%s\n' "$line" >&3
    last=$line
  done
  printf '%s\n' "$last"
}

train() { # train CONFIG: sets $run; the run folder is the last line that training prints
  say "trainyard train $1"
  run=$("$root/scripts/train.sh" "$root/$1" | show_and_keep_last)
  say "trainyard evaluate $run"
  "$root/scripts/evaluate.sh" "$run"
  say "trainyard export $run"
  "$root/scripts/export.sh" "$run" || [[ $? == 3 ]] # 3: a format was refused, and the table says why
}

predict() { # predict ITEM
  say "trainyard predict $run $1"
  "$root/.venv/bin/trainyard" predict "$run" "$1"
}

exec 3>&1 # to the user, from inside $(...)
"$root/scripts/setup.sh"

train configs/digits_resnet.yaml
images=$run
"$root/.venv/bin/python" - runs/demo_digit.png <<'PYTHON'
import sys
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
Image.fromarray((digits.images[7] * 255 / 16).astype("uint8")).save(sys.argv[1])
print(f"\n{sys.argv[1]}: an image file of a handwritten {digits.target[7]}")
PYTHON
predict runs/demo_digit.png

train configs/tickets_bert.yaml
texts=$run
predict "I was charged twice for my order, please refund one of the payments."

say "trainyard serve digits=$images tickets=$texts"
scratch=$(mktemp -d)
"$root/.venv/bin/trainyard" serve "digits=$images" "tickets=$texts" --port 0 --json > "$scratch/ready" 2> "$scratch/log" &
server=$!
end() { # ends the server, if it is still there
  kill "$server" 2> /dev/null || true
  wait "$server" 2> /dev/null || true
  rm -rf "$scratch"
}
trap end EXIT
until [[ -s $scratch/ready ]]; do
  kill -0 "$server" 2> /dev/null || { cat "$scratch/log" >&2; exit 1; }
  sleep 0.2
done
told() { "$root/.venv/bin/python" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1" < "$scratch/ready"; }
url=$(told inference)
token_file=$(told token_file)
ask() { # ask MODEL ITEM
  say "trainyard predict --url $url --model $1 $2"
  "$root/.venv/bin/trainyard" predict --url "$url" --token-file "$token_file" --model "$1" "$2"
}
ask digits runs/demo_digit.png
ask tickets "I was charged twice for my order, please refund one of the payments."
trap - EXIT
end

say "done"
printf 'images: %s/bundle and %s/exports/latest\ntexts:  %s/bundle and %s/exports/latest\n' \
  "$images" "$images" "$texts" "$texts"
printf 'next:   scripts/train.sh CONFIG on data of your own; what a config may say: trainyard config CONFIG\n'
