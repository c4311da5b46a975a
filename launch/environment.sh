# The other scripts source this file, which defines the function `environment FOLDER PYTHON EXTRAS`. It
# makes a virtual environment in FOLDER, installs cm_jax with EXTRAS ("" or "[test]", for example) into
# it, and puts it on the PATH. What is done already is not done again. PYTHON is the interpreter; if it
# is empty, the first of python3, python3.13, python3.12 and python3.11 that is at least 3.11.

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

environment() {
  local folder=$1 python=$2 extras=$3 candidate
  if [ ! -x "$folder/bin/python" ]; then
    for candidate in ${python:-python3 python3.13 python3.12 python3.11}; do
      if usable "$candidate"; then python=$candidate && break; fi
    done
    if ! usable "$python"; then
      echo "error: cm_jax needs Python >= 3.11; tried: ${python:-python3 python3.13 python3.12 python3.11}" >&2
      exit 2
    fi
    echo "Creating $folder with $("$python" --version)"
    "$python" -m venv "$folder"
  fi
  local stamp="$folder/.installed$extras"
  if [ ! -e "$stamp" ] || [ setup.py -nt "$stamp" ]; then
    echo "Installing cm_jax$extras into $folder (about a minute)"
    # pip may be missing if the making of the environment was interrupted, or another tool made it.
    "$folder/bin/python" -m pip --version >/dev/null 2>&1 || "$folder/bin/python" -m ensurepip
    "$folder/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --editable ".$extras"
    touch "$stamp"
  fi
  export PATH="$PWD/$folder/bin:$PATH"
}
