import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginsLoader;

/**
 * One Elasticsearch node on the loopback address: {@code java SearchNode.java HOME FOLDER [key=value ...]}.
 *
 * <p>Runs until its standard input ends, which the system sees to however the parent process ends.
 * Its folder then has no further use, and is removed.
 */
public final class SearchNode {
    private static final String NAME = "tests";

    public static void main(String[] arguments) {
        Path folder = Path.of(arguments[1]);
        List<String> extra = List.of(arguments).subList(2, arguments.length);
        try {
            run(settings(Path.of(arguments[0]), folder, extra), folder.resolve("config"));
            remove(folder);
            Runtime.getRuntime().halt(0);
        } catch (Throwable failure) {
            failure.printStackTrace();
            Runtime.getRuntime().halt(1); // other threads of a node that failed may go on for ever
        }
    }

    private static void run(Settings settings, Path config) throws Exception {
        LogConfigurator.configureESLogging();
        LogConfigurator.setNodeName(NAME);
        LogConfigurator.configureWithoutConfig(settings);
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), config, () -> NAME);
        PluginsLoader plugins = PluginsLoader.createPluginsLoader(
            PluginsLoader.loadModulesBundles(environment.modulesDir(), false),
            PluginsLoader.loadPluginsBundles(environment.pluginsDir(), false),
            Map.of());
        try (Node node = new Node(environment, plugins)) {
            node.start();
            System.in.transferTo(OutputStream.nullOutputStream());
        }
    }

    private static Settings settings(Path home, Path folder, List<String> extra) {
        Settings.Builder settings = Settings.builder()
            .put("cluster.name", NAME)
            .put("node.name", NAME)
            .put("discovery.type", "single-node")
            .put("path.home", home)
            .put("path.data", folder.resolve("data"))
            .put("path.logs", folder.resolve("logs"))
            .put("http.host", "127.0.0.1")
            .put("transport.host", "127.0.0.1")
            .put("transport.port", "0")
            .put("node.portsfile", true)
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .put("logger.level", "WARN");
        for (String setting : extra) {
            String[] pair = setting.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        return settings.build();
    }

    private static void remove(Path folder) throws IOException {
        try (Stream<Path> paths = Files.walk(folder)) {
            for (Path path : paths.sorted(Comparator.reverseOrder()).toList()) {
                Files.deleteIfExists(path);
            }
        }
    }
}
