#!/usr/bin/env bash
# Usage: scripts/demo.sh    trains an image and a text classifier, scores, exports, asks and serves them
# Minutes on a CPU, on data that come with the packages; needs no download after the set-up. The runs stay in runs/ of the
# working directory.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
digit=runs/demo_digit.png
complaint="I was charged twice for my order, please refund one of the payments."

say() { printf '\n== %s\n' "$*"; }

trainyard() { "$root/.venv/bin/trainyard" "$@"; }

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

draw_digit() { # writes $digit
  "$root/.venv/bin/python" - "$digit" <<'PYTHON'
import sys
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
Image.fromarray((digits.images[7] * 255 / 16).astype("uint8")).save(sys.argv[1])
print(f"\n{sys.argv[1]}: an image file of a handwritten {digits.target[7]}")
PYTHON
}

predict() { # predict RUN ITEM
  say "trainyard predict $1 $2"
  trainyard predict "$1" "$2"
}

serve() { # serve [NAME=]RUN...: sets $server, and $url and $token_file once it is ready
  say "trainyard serve $*"
  scratch=$(mktemp -d)
  trap end EXIT
  # Not by the function above: the process to end would be the shell's.
  "$root/.venv/bin/trainyard" serve "$@" --port 0 --json >"$scratch/ready" 2>"$scratch/log" &
  server=$!
  until [[ -s $scratch/ready ]]; do
    kill -0 "$server" 2>/dev/null || { cat "$scratch/log" >&2; exit 1; }
    sleep 0.2
  done
  url=$(told inference)
  token_file=$(told token_file)
  printf 'ready at %s; whoever asks shows the token in %s\n' "$url" "$token_file"
}

told() { # told KEY: of the line that the server prints when it is ready
  "$root/.venv/bin/python" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1" <"$scratch/ready"
}

ask() { # ask MODEL ITEM
  say "trainyard predict --url $url --token-file $token_file --model $1 $2"
  trainyard predict --url "$url" --token-file "$token_file" --model "$1" "$2"
}

end() { # ends the server, if it is still there
  trap - EXIT
  if [[ -n ${server:-} ]]; then
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf -- "$scratch"
}

tell_what_is_left() {
  say "done"
  printf 'images: %s/bundle and %s/exports/latest\ntexts:  %s/bundle and %s/exports/latest\n' \
    "$images" "$images" "$texts" "$texts"
  printf 'next:   scripts/train.sh CONFIG on data of your own; what a config may say: trainyard config CONFIG\n'
}

exec 3>&1 # to the user, from inside $(...)
"$root/scripts/setup.sh"

train configs/digits_resnet.yaml
images=$run
draw_digit
predict "$images" "$digit"

train configs/tickets_bert.yaml
texts=$run
predict "$texts" "$complaint"

serve "digits=$images" "tickets=$texts"
ask digits "$digit"
ask tickets "$complaint"
end

tell_what_is_left
