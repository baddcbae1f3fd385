# Readline splits words at ':' and '=': pass whole words to shtab, and remove the part that readline
# keeps from the results.
_gearshift() {
  local line=${COMP_LINE:0:COMP_POINT} word kept breaks=
  local -a COMP_WORDS
  local -i COMP_CWORD
  word=${line##*[[:space:]]}
  read -ra COMP_WORDS <<<"${line%"$word"}"
  case $word in --*=*) COMP_WORDS+=("${word%%=*}") word=${word#*=} ;; esac
  COMP_CWORD=${#COMP_WORDS[@]}
  COMP_WORDS+=("$word")
  _shtab_gearshift
  [[ $COMP_WORDBREAKS == *:* ]] && breaks+=:
  [[ $COMP_WORDBREAKS == *=* ]] && breaks+==
  [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace 2>/dev/null
  if [[ -n $breaks && $word == *[$breaks]* ]]; then
    kept=${word%"${word##*[$breaks]}"}
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
  fi
}
complete -o bashdefault -F _gearshift gearshift
