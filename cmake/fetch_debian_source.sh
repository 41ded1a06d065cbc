#!/bin/sh
# Downloads the upstream tarball of a Debian source package, unverified: the caller checks its SHA256.
#
#   fetch_debian_source.sh PACKAGE=VERSION FILE DIRECTORY
#
# Puts FILE (as in PACKAGE_1.2.orig.tar.gz) into DIRECTORY. Uses the archives that apt on this
# machine is set up for, asked for sources instead of packages, with lists and caches of its own in
# DIRECTORY: nothing outside is changed, no privilege is needed. Sources that are not Debian's are
# left alone. Exits 0 if FILE is there, otherwise says why on stderr, in one line.
set -eu

package=$1
file=$2
directory=$3
etc=${APT_ETC:-/etc/apt} # a test may set another

command -v apt-get >/dev/null || {
  echo "apt-get is not installed" >&2
  exit 1
}
mkdir -p "$directory/lists/partial" "$directory/cache/archives/partial" "$directory/parts"

# Debian's archives and their mirrors end in /debian (snapshots in a time after it), and its suites
# have known names. Security and backports carry other versions, so they would only cost time.
suites='bookworm|trixie|forky|sid|stable|oldstable|oldoldstable|testing|unstable'

# One line per source: deb [options] uri suite component...
options='(\[[^]]*\][[:space:]]+)'
uri='[^[:space:]]+/debian(/[0-9T]+Z)?/?'
for list in "$etc/sources.list" "$etc"/sources.list.d/*.list; do
  [ -r "$list" ] || continue
  sed -n -E "s#^[[:space:]]*deb[[:space:]]+(${options}?${uri}[[:space:]]+($suites)[[:space:]])#deb-src \1#p" "$list"
done | sort -u >"$directory/parts/debian.list"

# Paragraphs of fields (deb822).
for list in "$etc"/sources.list.d/*.sources; do
  [ -r "$list" ] || continue
  awk -v suites="^($suites)\$" '
    function value(line) { sub(/^[^:]*:[ \t]*/, "", line); return line }
    function flush(   n, i, words, wanted, uris) {
      n = split(uri, words, /[ \t]+/)
      for (i = 1; i <= n; i++) if (words[i] ~ /\/debian(\/[0-9T]+Z)?\/?$/) uris = uris " " words[i]
      n = split(suite, words, /[ \t]+/)
      for (i = 1; i <= n; i++) if (words[i] ~ suites) wanted = wanted " " words[i]
      if (uris != "" && wanted != "" && tolower(enabled) != "no" && types ~ /deb/)
        print "Types: deb-src\nURIs:" uris "\nSuites:" wanted rest "\n"
      types = uri = suite = enabled = rest = field = ""
    }
    /^#/ { next }
    /^[ \t]*$/ { flush(); next }
    /^[^ \t]/ { field = tolower($0); sub(/:.*/, "", field) }
    field == "types" { types = types " " value($0); next }
    field == "uris" { uri = uri " " (/^[ \t]/ ? $0 : value($0)); next }
    field == "suites" { suite = suite " " (/^[ \t]/ ? $0 : value($0)); next }
    field == "enabled" { enabled = value($0); next }
    field == "architectures" { next }
    { rest = rest "\n" $0 }
    END { flush() }
  ' "$list"
done >"$directory/parts/debian.sources"

[ -s "$directory/parts/debian.list" ] || [ -s "$directory/parts/debian.sources" ] || {
  echo "apt has no Debian archive in its sources" >&2
  exit 1
}

private_apt() {
  apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$directory/parts" \
    -o Dir::State::Lists="$directory/lists" -o Dir::Cache="$directory/cache" \
    -o Dir::Cache::SrcPkgCache= -o Dir::Cache::PkgCache= -o APT::Sandbox::User= "$@" \
    >"$directory/log" 2>&1 || {
    # apt names servers in its messages; those in the first error are enough.
    sed -n 's/^E: //p' "$directory/log" | head -n 1 >&2
    exit 1
  }
}

cd "$directory"
private_apt update
private_apt source --download-only "$package"
[ -f "$file" ] || {
  echo "source package $package has no $file" >&2
  exit 1
}
