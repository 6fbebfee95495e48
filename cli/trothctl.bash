# Completion of trothctl for bash: commands, flags, and the names and ids that a coordinator knows.
# Installed by CMake; asks the coordinator at most 1 s. docs/operations.md has the commands.

_trothctl_ask() {  # _trothctl_ask MEMBER COMMAND...: values of that member of the JSON answer
  local member=$1 word at=()
  shift
  for word in "${COMP_WORDS[@]}"; do
    case $word in --coordinator=*) at=("$word") ;; esac
  done
  timeout 1 trothctl "${at[@]}" "$@" --json 2>/dev/null |
    sed -n "s/^ *\"$member\": \"\\(.*\\)\",\\{0,1\\}\$/\\1/p"
}

_trothctl() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local commands='status list show trace why resolve heuristics participants drain doctor audit
    accept-gap discard-report wal'
  local flags='--coordinator --json --help --version --tls_cert --tls_key --tls_ca'
  local command='' word i
  for ((i = 1; i < COMP_CWORD; ++i)); do
    word=${COMP_WORDS[i]}
    case $word in
      -*) ;;
      *) if [[ " ${commands//$'\n'/ } " == *" $word "* ]]; then command=$word; break; fi ;;
    esac
  done
  case $previous in
    --participant | forget | rebind | discard-report)
      COMPREPLY=($(compgen -W "$(_trothctl_ask participant participants)" -- "$current"))
      return ;;
    --tls_cert | --tls_key | --tls_ca)
      COMPREPLY=($(compgen -f -- "$current"))
      return ;;
    --coordinator | --reason | --who | --token | --limit | --older_than | --database | --wait_s)
      COMPREPLY=()
      return ;;
  esac
  case $command in
    list) flags+=' --in_doubt --older_than --participant --limit' ;;
    why) flags+=' --database' ;;
    resolve) flags+=' --commit --abort --reason --who --decision_lost --yes --token' ;;
    drain) flags+=' --wait_s' ;;
    accept-gap | discard-report) flags+=' --reason' ;;
    audit | wal) flags+=' --name --transaction' ;;
  esac
  if [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$current"))
    return
  fi
  case $command in
    '') COMPREPLY=($(compgen -W "$commands" -- "$current")) ;;
    show | trace | why | resolve)
      COMPREPLY=($(compgen -W "$(_trothctl_ask transaction_id list)" -- "$current")) ;;
    participants) COMPREPLY=($(compgen -W 'list forget rebind' -- "$current")) ;;
    wal)
      if [[ $previous == wal ]]; then
        COMPREPLY=($(compgen -W 'verify stats dump' -- "$current"))
      else
        COMPREPLY=($(compgen -d -- "$current"))
      fi ;;
    audit) COMPREPLY=($(compgen -d -- "$current")) ;;
  esac
} && complete -F _trothctl trothctl
