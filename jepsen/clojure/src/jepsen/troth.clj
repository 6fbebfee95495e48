(ns jepsen.troth
  "The test: lein run test --workload bank|append --nemesis kill,pause,partition. See README.md."
  (:gen-class)
  (:require [clojure.string :as str]
            [jepsen.checker :as checker]
            [jepsen.cli :as cli]
            [jepsen.generator :as gen]
            [jepsen.nemesis.combined :as combined]
            [jepsen.tests :as tests]
            [jepsen.troth.db :as db]
            [jepsen.troth.remote :as remote]
            [jepsen.troth.workload :as workload]))

(def settle-seconds "After the last fault: leases of 8 s, then all in doubt is settled." 15)

(defn troth-test
  "A test map from the options of the command line."
  [opts]
  (let [nodes    (:nodes opts)
        db       (db/->Troth (:bin opts))
        workload ((workload/workloads (:workload opts))
                  {:participants (db/participants nodes), :bin (:bin opts)})
        package  (combined/nemesis-package {:db       db
                                            :faults   (:nemesis opts)
                                            :interval (:nemesis-interval opts)})]
    (merge tests/noop-test
           opts
           (dissoc workload :generator :checker)
           {:name        (str "troth " (:workload opts) " " (str/join "," (map name (:nemesis opts))))
            :remote      (remote/namespaces)
            :db          db
            :coordinator (str (first nodes) ":" db/client-port)
            :nemesis     (:nemesis package)
            :checker     (checker/compose {:workload   (:checker workload)
                                           :stats      (checker/stats)
                                           :exceptions (checker/unhandled-exceptions)
                                           :perf       (checker/perf {:nemeses (:perf package)})})
            :generator   (gen/phases
                          (->> (:generator workload)
                               (gen/stagger (/ (:rate opts)))
                               (gen/nemesis (gen/phases (gen/sleep 3) (:generator package)))
                               (gen/time-limit (:time-limit opts)))
                          (gen/nemesis (:final-generator package))
                          (->> (:generator workload)
                               (gen/stagger (/ (:rate opts)))
                               (gen/clients)
                               (gen/time-limit settle-seconds)))})))

(def options
  [["-w" "--workload NAME" "bank or append"
    :default  "bank"
    :validate [workload/workloads (cli/one-of workload/workloads)]]
   [nil "--nemesis FAULTS" "of kill, pause, partition; or none"
    :default  #{:kill :pause :partition}
    :parse-fn #(disj (set (map keyword (str/split % #",\s*"))) :none)
    :validate [#(every? #{:kill :pause :partition} %) "of kill, pause, partition; or none"]]
   [nil "--nemesis-interval SECONDS" "between faults, on average"
    :default  5
    :parse-fn #(Long/parseLong %)
    :validate [pos? "must be positive"]]
   [nil "--rate HZ" "operations a second, about"
    :default  100
    :parse-fn #(Long/parseLong %)
    :validate [pos? "must be positive"]]
   [nil "--bin DIR" "the programs of Troth, built"
    :default  "../../build/release/bin"
    :parse-fn #(.getCanonicalPath (java.io.File. ^String %))]])

(defn -main
  [& arguments]
  (cli/run! (merge (cli/single-test-cmd {:test-fn troth-test, :opt-spec options})
                   (cli/serve-cmd))
            arguments))
