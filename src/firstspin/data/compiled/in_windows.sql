SELECT
  COALESCE("t10"."row of the file", -1) AS "row of the file",
  "t6"."number of the station",
  "t10"."started_at",
  "t10"."seconds"
FROM (
  SELECT
    *
  FROM (
    SELECT
      "t3"."user_id",
      "t3"."started_at",
      "t3"."station_id",
      "t3"."seconds",
      "t7"."row of the file",
      "t7"."user_id" AS "user_id_right",
      "t7"."opens"
    FROM "listens in microseconds" AS "t3"
    LEFT OUTER JOIN (
      SELECT
        CAST("t2"."row of the file" AS INT) AS "row of the file",
        "t2"."user_id",
        "t2"."registered_at" + {gap} AS "opens"
      FROM "registrations in microseconds" AS "t2"
    ) AS "t7"
      ON "t3"."user_id" = "t7"."user_id"
  ) AS "t8"
  WHERE
    (
      "t8"."row of the file" IS NULL
    )
    OR (
      (
        "t8"."started_at" >= "t8"."opens"
      )
      AND (
        "t8"."started_at" < (
          "t8"."opens" + {window}
        )
      )
    )
) AS "t10"
INNER JOIN (
  SELECT
    "t0"."station_id",
    "t0"."genre",
    CAST("t0"."row of the file" AS INT) AS "number of the station"
  FROM "stations" AS "t0"
) AS "t6"
  ON "t10"."station_id" = "t6"."station_id"
