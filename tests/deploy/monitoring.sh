# The alert rules and the dashboard. That every metric in them is one that a service shows is a journey's to tell.
# shellcheck shell=bash
: "${work:?is sourced by run}"

alerts=deploy/monitoring/alerts.yml

# An expression changed on purpose must be noticed by the tests of the rules.
dead_alert_is_found() {
    local rules=$work/monitoring
    rm -rf "$rules"
    cp -r deploy/monitoring "$rules"
    sed -i 's/crier_rows_held) > 0/crier_rows_held) > 1000/' "$rules/alerts.yml"
    ! cmp -s "$rules/alerts.yml" "$alerts" || { echo "nothing was changed"; return 1; }
    ! promtool test rules "$rules/alerts_test.yml" || { echo "an alert that can't fire passed"; return 1; }
}

# Whoever is woken finds in the README what to do, and no alert there that is none.
alerts_are_in_the_readme() {
    local named told
    named=$(sed -n 's/.*- alert: //p' "$alerts" | sort)
    # shellcheck disable=SC2016
    told=$(sed -n '/^### Alerts/,/^### Scale/p' README.md | grep -o '`Crier[A-Za-z]*`' | tr -d '`' | sort)
    diff <(printf '%s\n' "$named") <(printf '%s\n' "$told")
}

if have promtool; then
    check "promtool accepts the rules" promtool check rules --lint-fatal "$alerts"
    check "the alerts fire when they should" promtool test rules deploy/monitoring/alerts_test.yml
    check "an alert that can't fire is found" dead_alert_is_found
else
    cannot "the alert rules" "promtool is not here"
fi
check "each alert is in the README" alerts_are_in_the_readme
check "the dashboard is JSON" python3 -m json.tool deploy/monitoring/dashboard.json
