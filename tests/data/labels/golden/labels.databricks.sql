WITH `t15` AS (
  SELECT
    `t14`.`row of the file`,
    `t14`.`genre`,
    COUNT(*) AS `listens in the window`,
    SUM(`t14`.`times` - 1) AS `copies of listens in the window`,
    CASE
      WHEN NOT (
        SUM(`t14`.`seconds`) BETWEEN 0.001 AND 8589934592.0
      )
      THEN SUM(`t14`.`seconds`)
      WHEN SUM(`t14`.`seconds`) = CAST(FLOOR(SUM(`t14`.`seconds`)) AS BIGINT)
      THEN SUM(`t14`.`seconds`)
      ELSE CAST(ROUND(SUM(`t14`.`seconds`), 6) AS DOUBLE)
    END AS `seconds`
  FROM (
    SELECT
      `t13`.`row of the file`,
      `t13`.`number of the station`,
      `t13`.`started_at`,
      `t13`.`seconds`,
      `t13`.`genre`,
      COUNT(*) AS `times`
    FROM (
      SELECT
        `t12`.`row of the file`,
        IF(`t12`.`row of the file` IS NOT NULL, `t9`.`number of the station`, NULL) AS `number of the station`,
        IF(`t12`.`row of the file` IS NOT NULL, `t12`.`started_at`, NULL) AS `started_at`,
        IF(`t12`.`row of the file` IS NOT NULL, `t12`.`seconds`, NULL) AS `seconds`,
        IF(`t12`.`row of the file` IS NOT NULL, `t9`.`genre`, NULL) AS `genre`
      FROM (
        SELECT
          *
        FROM (
          SELECT
            `t3`.`user_id`,
            `t3`.`started_at`,
            `t3`.`station_id`,
            `t3`.`seconds`,
            `t8`.`row of the file`,
            `t8`.`user_id` AS `user_id_right`,
            `t8`.`opens`
          FROM `listens` AS `t3`
          LEFT OUTER JOIN (
            SELECT
              CAST(`t0`.`row of the file` AS INT) AS `row of the file`,
              `t0`.`user_id`,
              `t0`.`registered_at` + INTERVAL '30' DAY AS `opens`
            FROM `registrations` AS `t0`
          ) AS `t8`
            ON `t3`.`user_id` = `t8`.`user_id`
        ) AS `t10`
        WHERE
          (
            `t10`.`row of the file` IS NULL
          )
          OR (
            (
              `t10`.`started_at` >= `t10`.`opens`
            )
            AND (
              `t10`.`started_at` < (
                `t10`.`opens` + INTERVAL '30' DAY
              )
            )
          )
      ) AS `t12`
      INNER JOIN (
        SELECT
          `t1`.`station_id`,
          `t1`.`genre`,
          CAST(`t1`.`row of the file` AS INT) AS `number of the station`
        FROM `stations` AS `t1`
      ) AS `t9`
        ON `t12`.`station_id` = `t9`.`station_id`
    ) AS `t13`
    GROUP BY
      1,
      2,
      3,
      4,
      5
  ) AS `t14`
  GROUP BY
    1,
    2
), `t18` AS (
  SELECT
    `t16`.`row of the file`,
    COUNT(*) AS `genres in the window`,
    CASE
      WHEN NOT (
        SUM(`t16`.`seconds`) BETWEEN 0.001 AND 8589934592.0
      )
      THEN SUM(`t16`.`seconds`)
      WHEN SUM(`t16`.`seconds`) = CAST(FLOOR(SUM(`t16`.`seconds`)) AS BIGINT)
      THEN SUM(`t16`.`seconds`)
      ELSE CAST(ROUND(SUM(`t16`.`seconds`), 6) AS DOUBLE)
    END AS `seconds`,
    MAX(`t16`.`seconds`) AS `seconds of the top genre`
  FROM `t15` AS `t16`
  GROUP BY
    1
)
SELECT
  `t30`.`row of the file`,
  CASE
    WHEN NOT (
      (
        `t30`.`registered_at` + INTERVAL '60' DAY
      ) <= CAST('2025-06-01T00:00:00' AS TIMESTAMP)
    )
    THEN 'window not over yet'
    WHEN `t30`.`seconds` IS NULL OR ISNAN(`t30`.`seconds`)
    THEN 'no listen in the window'
    WHEN `t30`.`seconds` < 600
    THEN 'under the activity rule'
    ELSE CAST(NULL AS STRING)
  END AS `why there is no label`,
  `t30`.`top_genre`,
  `t30`.`seconds`,
  COALESCE(`t30`.`genres in the window`, 0) AS `genres in the window`
FROM (
  SELECT
    `t29`.`row of the file`,
    `t29`.`registered_at`,
    `t29`.`genres in the window`,
    `t29`.`seconds`,
    `t29`.`top_genre`
  FROM (
    SELECT
      `t7`.`row of the file`,
      `t7`.`registered_at`,
      `t28`.`row of the file` AS `row of the file_right`,
      `t28`.`genres in the window`,
      `t28`.`seconds`,
      `t28`.`top_genre`
    FROM (
      SELECT
        CAST(`t0`.`row of the file` AS INT) AS `row of the file`,
        `t0`.`registered_at`
      FROM `registrations` AS `t0`
    ) AS `t7`
    LEFT OUTER JOIN (
      SELECT
        `t26`.`row of the file`,
        `t26`.`genres in the window`,
        `t26`.`seconds`,
        `t26`.`top_genre`
      FROM (
        SELECT
          `t20`.`row of the file`,
          `t20`.`genres in the window`,
          `t20`.`seconds`,
          `t20`.`seconds of the top genre`,
          `t25`.`top_genre`
        FROM `t18` AS `t20`
        INNER JOIN (
          SELECT
            `t23`.`row of the file`,
            MIN(`t23`.`genre`) AS `top_genre`
          FROM (
            SELECT
              `t17`.`row of the file`,
              `t17`.`genre`,
              `t17`.`listens in the window`,
              `t17`.`copies of listens in the window`,
              `t17`.`seconds`,
              `t22`.`seconds of the top genre`
            FROM `t15` AS `t17`
            INNER JOIN (
              SELECT
                `t19`.`row of the file`,
                `t19`.`seconds of the top genre`
              FROM `t18` AS `t19`
            ) AS `t22`
              ON `t17`.`row of the file` = `t22`.`row of the file`
              AND `t17`.`seconds` = `t22`.`seconds of the top genre`
          ) AS `t23`
          GROUP BY
            1
        ) AS `t25`
          ON `t20`.`row of the file` = `t25`.`row of the file`
      ) AS `t26`
    ) AS `t28`
      ON `t7`.`row of the file` = `t28`.`row of the file`
  ) AS `t29`
) AS `t30`
ORDER BY
  `t30`.`row of the file` ASC NULLS LAST
