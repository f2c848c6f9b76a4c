-- What people query: one row per series and window, merged over partitions and late contributions.
--
-- Means and deviations merge by the formula of Chan, Golub and LeVeque (1979): the deviations within the rows, and those
-- of their means from the common mean. Of first and last events with the same time, the log position decides: the
-- window's own row holds earlier positions than any late contribution.
CREATE OR REPLACE VIEW {database}.windows AS
SELECT
    {key},
    window_start,
    n AS `count`,
    total AS `sum`,
    lowest AS `min`,
    highest AS `max`,
    total / n AS `mean`,
    sqrt((m2_within + arraySum(part -> part.1 * pow(part.2 / part.1 - total / n, 2), parts)) / n) AS `stddev`,
    opening_value AS `first_value`,
    opening_time AS `first_time`,
    closing_value AS `last_value`,
    closing_time AS `last_time`,
    flags AS `anomalies`,
    top_score AS `max_score`,
    bad AS `bad_quality`,
    toBool(open_rows = 0) AS `closed`,
    late_events AS `late`
FROM
(
    SELECT
        {key},
        window_start,
        sum(`count`) AS n,
        sum(`sum`) AS total,
        min(`min`) AS lowest,
        max(`max`) AS highest,
        sum(`m2`) AS m2_within,
        groupArray((toFloat64(`count`), `sum`)) AS parts,
        argMin(`first_value`, (`first_time`, `partition`, `segment`)) AS opening_value,
        min(`first_time`) AS opening_time,
        argMax(`last_value`, (`last_time`, `partition`, `segment`)) AS closing_value,
        max(`last_time`) AS closing_time,
        sum(`anomalies`) AS flags,
        max(`max_score`) AS top_score,
        sum(`bad_quality`) AS bad,
        countIf(`segment` = -1 AND NOT `closed`) AS open_rows,
        sumIf(`count`, `segment` != -1) AS late_events
    FROM {database}.windows_1m FINAL
    GROUP BY {key}, window_start
    -- Rows of one key lie in one partition of the table: its day is part of the key.
    SETTINGS do_not_merge_across_partitions_select_final = 1
);
